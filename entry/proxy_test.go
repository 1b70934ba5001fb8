package entry

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"hongyan/internal/wire"
)

// binaryHeader of version 2: command 0 LOCAL, 1 PROXY; family 1 IPv4, 2 IPv6.
func binaryHeader(command, family byte, client, server string, tlvs int) []byte {
	b := append([]byte(proxyBinary), 0x20|command, family<<4|1)
	var rest []byte
	for _, s := range []string{client, server} {
		if s != "" {
			rest = append(rest, netip.MustParseAddr(s).AsSlice()...)
		}
	}
	rest = append(rest, make([]byte, 4+tlvs)...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(rest))), rest...)
}

func TestProxyHeaders(t *testing.T) {
	long := "PROXY TCP6 " + strings.Repeat("f", 100)
	for _, c := range []struct {
		name, in, client string
		fails            bool
	}{
		{"text, IPv4", "PROXY TCP4 192.0.2.7 10.0.0.1 5000 7000\r\n", "192.0.2.7", false},
		{"text, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 5000 7000\r\n", "2001:db8::7", false},
		{"text, IPv4 within IPv6", "PROXY TCP6 ::ffff:192.0.2.7 ::1 5000 7000\r\n", "192.0.2.7", false},
		{"text, unknown", "PROXY UNKNOWN\r\n", "", false},
		{"text, unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "", false},
		{"binary, IPv4", string(binaryHeader(1, 1, "192.0.2.7", "10.0.0.1", 0)), "192.0.2.7", false},
		{"binary, IPv6, TLVs", string(binaryHeader(1, 2, "2001:db8::7", "::1", 300)), "2001:db8::7", false},
		{"binary, local", string(binaryHeader(0, 0, "", "", 0)), "", false},
		{"binary, local with addresses", string(binaryHeader(0, 1, "192.0.2.7", "10.0.0.1", 0)), "", false},
		{"binary, unspecified", string(binaryHeader(1, 0, "", "", 0)), "", false},
		{"none", "\xa7\x14\x30\x01", "", true},
		{"text, too long", long, "", true},
		{"text, few fields", "PROXY TCP4 192.0.2.7\r\n", "", true},
		{"text, no address", "PROXY TCP4 localhost 10.0.0.1 1 2\r\n", "", true},
		{"text, other transport", "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n", "", true},
		{"text, zone", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "", true},
		{"binary, version 1", "\r\n\r\n\x00\r\nQUIT\n\x11\x11\x00\x0c" + strings.Repeat("x", 12), "", true},
		{"binary, too long", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", "", true},
		{"binary, too short", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04abcd", "", true},
		{"binary, unix", "\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\x04abcd", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := c.in + "rest"
			client, n, err := parseProxy([]byte(in))
			if c.fails {
				if err == nil || errors.Is(err, wire.ErrShort) {
					t.Errorf("got %v, %d, %v", client, n, err)
				}
				return
			}
			want, _ := netip.ParseAddr(c.client)
			if err != nil || client != want || in[n:] != "rest" {
				t.Fatalf("got %v, %d, %v", client, n, err)
			}
			for i := range n {
				if _, _, err := parseProxy([]byte(in[:i])); !errors.Is(err, wire.ErrShort) {
					t.Errorf("of the first %d bytes it says %v", i, err)
				}
			}
		})
	}
}

// FuzzProxyHeader: no input panics, and no header is longer than it may be.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 5000 7000\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(binaryHeader(1, 1, "192.0.2.7", "10.0.0.1", 7))
	f.Add(binaryHeader(1, 2, "2001:db8::7", "::1", 0))
	f.Add(binaryHeader(0, 0, "", "", 0))
	f.Fuzz(func(t *testing.T, in []byte) {
		client, n, err := parseProxy(in)
		switch {
		case n < 0 || n > len(in) || n > proxyFixed+proxyRestMax:
			t.Errorf("a header of %d bytes in %d", n, len(in))
		case err != nil && (n != 0 || client.IsValid()):
			t.Errorf("%v, %d, and the error %v", client, n, err)
		case errors.Is(err, wire.ErrShort) && len(in) >= proxyFixed+proxyRestMax:
			t.Errorf("%d bytes are not enough", len(in))
		}
	})
}
