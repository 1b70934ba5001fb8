// Package extlogic does what is heavy or custom, behind the message queue: today the
// offline push and system notices of business systems; broadcasts, webhooks, search and
// the customer-service desk will stand beside them.
//
// It owns what becomes of the queue's messages. It never holds a client connection, and
// nothing waits for it: the queue only wakes, what is still to be done is read from the
// store, and any instance may die at any moment without effect (ZZ-19).
//
// The flow of an offline event: offline (decode) -> behind (what does the store say now) ->
// compose (a notification for each conversation) -> push (to the vendor of each device) ->
// settle (record the pushes, raise woken_version). Of a notice: notice -> Logic.Execute.
//
// Logic publishes offline events and is called for notices; Das is read and written.
package extlogic
