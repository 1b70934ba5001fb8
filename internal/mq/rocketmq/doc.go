// Package rocketmq is the message queue of a cluster: mq.Queue over Apache RocketMQ, by its
// Go client for what is hot, and by a few calls of its remoting protocol for what the client
// cannot do (call.go: routes, topics, groups, dead letters).
//
//	Publish       -> a sender for each topic and slot: all that waits becomes one send (law 4)
//	Subscribe     -> one push consumer for a group: pulled -> lanes (one at a time per key) -> handler
//	              -> done, back to the broker with a delay, or dead
//	SubscribeAll  -> one broadcasting push consumer for a topic
//
// How its promises differ from the embedded queue's is told in
// docs/decisions/0006-order-on-rocketmq.md: a failed message does not hold up those behind
// it. Topic offline of prefix hongyan_ is RocketMQ's topic hongyan_offline, its group push is
// hongyan_offline_push.
package rocketmq
