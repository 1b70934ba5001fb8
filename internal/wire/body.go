package wire

import "hongyan/idl/im"

// errorType is the body of every response whose status is not 0.
const errorType = "hongyan.im.Error"

// RequestType is the full protobuf name of the body that a command carries when it is not
// a response, in either direction. Empty: the body is empty, or the command unknown.
func RequestType(cmd im.Cmd) string {
	request, _ := types(cmd)
	return qualified(request)
}

// ResponseType is the full protobuf name of the body of a command's response with status
// 0. Empty: the body is empty, or there is no response.
func ResponseType(cmd im.Cmd) string {
	_, response := types(cmd)
	return qualified(response)
}

// BodyType is the full protobuf name of the frame's body, from its command, direction and
// status. Empty: the body is empty, or the command unknown.
func BodyType(f *Frame) string {
	switch {
	case f.Flags&FlagResponse == 0:
		return RequestType(f.Cmd)
	case f.Status != 0:
		return errorType
	}
	return ResponseType(f.Cmd)
}

func qualified(name string) string {
	if name == "" {
		return ""
	}
	return "hongyan.im." + name
}

// types is the table of bodies; idl/im.proto tells the directions.
func types(cmd im.Cmd) (request, response string) {
	switch cmd {
	case im.Cmd_HELLO:
		return "Hello", "HelloAck"
	case im.Cmd_AUTH:
		return "Auth", "AuthAck"
	case im.Cmd_PING:
		return "Ping", "Pong"
	case im.Cmd_SEND:
		return "Send", "SendAck"
	case im.Cmd_PUSH:
		return "Push", ""
	case im.Cmd_PUSH_ACK:
		return "PushAck", ""
	case im.Cmd_NOTICE:
		return "Notice", ""
	case im.Cmd_SYNC:
		return "Sync", "SyncRsp"
	case im.Cmd_HISTORY:
		return "History", "HistoryRsp"
	case im.Cmd_READ:
		return "Read", "ReadAck"
	case im.Cmd_TYPING:
		return "Typing", ""
	case im.Cmd_RECALL, im.Cmd_EDIT:
		return "Modify", "SendAck"
	case im.Cmd_CONVERSATIONS:
		return "Conversations", "ConversationsRsp"
	case im.Cmd_CONTACTS:
		return "Contacts", "ContactsRsp"
	case im.Cmd_PRESENCE:
		return "Presence", "PresenceRsp"
	case im.Cmd_CALL:
		return "Call", "CallRsp"
	case im.Cmd_KICK:
		return "Kick", ""
	case im.Cmd_GOAWAY:
		return "GoAway", ""
	case im.Cmd_ERROR:
		return "Error", ""
	case im.Cmd_LOGOUT:
		return "Logout", ""
	case im.Cmd_UNREAD:
		return "Unread", "UnreadRsp"
	case im.Cmd_SETTINGS:
		return "Settings", "SettingsAck"
	case im.Cmd_BLOCK:
		return "Block", "BlockAck"
	case im.Cmd_ANNOUNCE:
		return "Announcement", ""
	}
	return "", ""
}
