// Package remoting makes single requests in RocketMQ's remoting protocol, for what the Go client
// has no call for: topics and groups at a start, letters for an operator, settings for doctor.
// Nothing of it is on the path of a message.
//
// A frame, all numbers big-endian:
//
//	4 bytes  length of what follows
//	1 byte   form of the header: 0 = JSON
//	3 bytes  length of the header
//	header   code, opaque (repeated in the answer), flag (bit 0: an answer), extFields
//	body
package remoting
