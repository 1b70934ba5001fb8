// Package chaos runs a load against processes of Hongyan while a random schedule of faults
// hits them, and then holds what every device has shown against the oracle of the promises:
// acked messages are there exactly once (A), unacked ones at most once (U), in one order (O),
// and everything has converged 30 s after the last fault is healed (L).
//
// A run is its seed: the schedule is printed and can be run again.
package chaos
