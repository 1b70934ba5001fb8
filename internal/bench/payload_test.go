package bench

import (
	"bytes"
	"testing"
)

// A retry stands behind other fields than the first attempt. Seen red: its filler differed, and
// the server refused it as another message.
func TestPayloadIsTheSameWhereverItStands(t *testing.T) {
	p := payload{pair: 1, number: 2, at: 3}
	first, retry := p.append(nil, 256), p.append(make([]byte, 38), 256)[38:]
	if !bytes.Equal(first, retry) {
		t.Errorf("%x\n%x", first, retry)
	}
}
