// Package sim is a cluster in a bubble: gateways, logics, dases and their surroundings in
// one process under virtual time, with all the real code of the tiers and of the client,
// over a network, a store and a queue that lose, delay, repeat and refuse as a seed says.
// The oracle of the promises judges what the clients saw and what the store holds.
package sim
