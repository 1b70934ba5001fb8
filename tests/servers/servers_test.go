package servers

import (
	"testing"
)

// firstClientPort is where Linux begins with the ports that it gives to clients.
const firstClientPort = 32768

func TestSetsShareNoPort(t *testing.T) {
	ports, err := portsOf(script("set.env"))
	if err != nil || len(ports) < 15 {
		t.Fatalf("%d ports, %v", len(ports), err)
	}
	owner := map[int]int{}
	for _, port := range ports { // those of make servers
		owner[port] = 0
	}
	for offset := range offsets() {
		for _, port := range ports {
			if other, taken := owner[port+offset]; taken {
				t.Errorf("port %d is in the sets at offset %d and %d", port+offset, other, offset)
			}
			if port+offset >= firstClientPort {
				t.Errorf("port %d at offset %d may be a client's", port+offset, offset)
			}
			owner[port+offset] = offset
		}
	}
}

func TestSetsSideBySideHaveOffsetsOfTheirOwn(t *testing.T) {
	taken := map[int]bool{}
	for range 3 {
		offset, unlock := claimOffset(t)
		defer unlock()
		if taken[offset] {
			t.Errorf("offset %d was given twice", offset)
		}
		taken[offset] = true
	}
}
