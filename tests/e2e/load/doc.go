// Package load talks over every transport while a test breaks things, and then holds what every
// device was shown against the promises: acked messages are there exactly once (A), unacked ones
// at most once (U), in one order (O), nothing foreign is there (T), and all is level 30 s after
// the last fault is healed (L).
//
//	l := load.Start(t, system, 4)
//	l.Progresses(100)   // before, while and after something is broken
//	l.Finish()
package load
