// Package imui is the way in for the platform's own systems: the Kitex service IMUI of
// idl/platform.proto. It translates and owns nothing: each call becomes one command at the
// home Logic of the user it speaks for, and the answer is translated back.
//
// It never holds a rule of its own and never touches a store. Internal systems call it.
//
// The flow: a method (service.go) admits the caller (caller.go), turns the request into a
// client command, runs it (run), and fills the reply's status.
package imui
