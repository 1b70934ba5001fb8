// Package chaos hits processes of Hongyan with a random schedule of faults while a load runs,
// whose oracle then tells whether the promises hold.
//
// A run is its seed: the schedule is printed and can be run again.
package chaos
