// Package hongyan is the Go client of Hongyan: private messages over TCP, WebSocket or
// long poll, whichever of them gets through.
//
//	c, err := hongyan.New(hongyan.Options{
//		Endpoints: []string{"tcp://im.example:7000", "wss://im.example", "https://im.example"},
//		Token:     fetchTokenFromMyBackend,
//		Device:    installationID,
//		Store:     store, // hongyan.OpenFile(path), so that nothing is lost across restarts
//		On:        hongyan.Handlers{Message: func(m *hongyan.Message) { ... }},
//	})
//	err = c.Connect(ctx)
//	sent, err := c.Send(ctx, hongyan.Outgoing{To: "bob", Text: "hello"})
//
// Once connected the client stays so: it reconnects with jitter, goes to the next endpoint
// when one does not answer, repeats what was not acknowledged under the same id, fetches
// what it missed, and removes duplicates. A message whose Send was answered is stored; one
// that was shown is not shown again as long as the application keeps messages by
// (Conv, Seq). What a server ends for good (another device took over, the token was
// revoked) stays ended until Connect is called again.
//
// The rules themselves are in package core, without sockets and clocks.
package hongyan
