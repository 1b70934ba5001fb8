// Package core is the client of Hongyan without sockets, goroutines and clocks: a state
// machine that the connection layer of the SDK and the simulated cluster drive alike. It
// holds what docs/protocol.md asks of a client: cursor and gaps (R11, R12), the outbox
// with its order (R13), modifications (R25), acknowledgements, retries and timers.
//
// Inputs are method calls that carry the present time; outputs gather until Take:
//
//	c, err := core.New(cfg, saved)        // saved: what the device's store holds
//	c.Connected(now, core.Link{Token: t}) // a transport is open: HELLO, AUTH, SYNC follow
//	c.Receive(now, frame)                 // one frame of the server
//	c.Send(now, core.Outgoing{...})       // user calls: Send, Modify, Retry, Call, MarkRead, ...
//	c.Tick(now)                           // when Wake() has come
//	c.Disconnected(now)                   // the transport ended, for whatever reason
//
// After any of them, or after several (a burst is then one write to disk and one to the
// socket), the driver takes the output and performs it in this order:
//
//	for out := c.Take(); !out.Empty(); out = c.Take() {
//		store.Save(out.Before)  // 1. outbox and counter: before the frames leave
//		write(out.Frames)       // 2. at once; if out.Close is set, close after them
//		answer(out.Answers)     // 3. results of Call
//		show(out.Events)        // 4. to the application, in order
//		store.Save(out.After)   // 5. cursor and ranges, one write, after the application has the events
//		c.Stored(now, out.N)    // 6. from here on the cursor may be acknowledged
//	}
//
// Steps 4 to 6 may lag behind (the application is slow) as long as their order is kept;
// frames never wait for them. A crash before 5 repeats the events of 4, one after it
// repeats nothing: so the application sees every message at least once, and exactly once
// if it keeps messages by (conv, seq).
//
// [Memory] is a store for simulations: Load gives a New its Saved, Save applies a Change;
// a process that dies keeps its Memory and loses its Core.
//
// What a message is for the application: [Received] (someone's, or one's own from another
// device), [Sent] (one's own, acknowledged), then perhaps [Modified] and, after a failover
// to an older copy, [Replaced] or [Removed]. Events of one conversation may arrive out of
// the order of seq while a gap is being filled: order by (conv, seq).
//
// One goroutine at a time may use a Core.
package core
