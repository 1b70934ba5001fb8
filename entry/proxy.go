package entry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/wire"
)

// The PROXY protocol (haproxy.org, proxy-protocol.txt): a balancer starts each connection with
// a header that names the client. Version 1 is a line of text, version 2 is binary:
//
//	12 signature | 1 version 2, command | 1 family, transport | 2 length | addresses, TLVs
const (
	proxyLineMax = 107 // of version 1 with its CRLF, bytes
	proxyFixed   = 16  // of version 2 before the addresses
	proxyRestMax = 2 << 10
	// proxyTimeout is how long a balancer has for its header.
	proxyTimeout = 5 * time.Second
)

const (
	proxyText   = "PROXY "
	proxyBinary = "\r\n\r\n\x00\r\nQUIT\n"
)

// parseProxy reads the header that starts b. It returns the client's address, not valid where
// the balancer speaks for itself (a health check), and the header's length. wire.ErrShort:
// more bytes are needed.
func parseProxy(b []byte) (client netip.Addr, n int, err error) {
	switch {
	case begins(b, proxyBinary):
		return parseProxyBinary(b)
	case begins(b, proxyText):
		return parseProxyText(b)
	}
	return netip.Addr{}, 0, code.Errorf(code.CloseProtocolError, "the connection does not begin with a PROXY header")
}

// begins tells whether b starts with a text, as far as it goes.
func begins(b []byte, text string) bool {
	n := min(len(b), len(text))
	return string(b[:n]) == text[:n]
}

func parseProxyBinary(b []byte) (client netip.Addr, n int, err error) {
	if len(b) < proxyFixed {
		return client, 0, wire.ErrShort
	}
	command, family, rest := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	if command != 0x20 && command != 0x21 || rest > proxyRestMax {
		return client, 0, code.Errorf(code.CloseProtocolError, "PROXY header: version and command %#x, %d bytes", command, rest)
	}
	if len(b) < proxyFixed+rest {
		return client, 0, wire.ErrShort
	}
	n, b = proxyFixed+rest, b[proxyFixed:proxyFixed+rest]
	size := map[byte]int{0x11: 4, 0x21: 16}[family] // TCP over IPv4, IPv6
	switch {
	case command == 0x20 || family>>4 == 0: // LOCAL, or an address that is none of the internet's
		return client, n, nil
	case size == 0 || len(b) < 2*size+4:
		return client, 0, code.Errorf(code.CloseProtocolError, "PROXY header: family %#x with %d bytes", family, len(b))
	}
	client, _ = netip.AddrFromSlice(b[:size])
	return client.Unmap(), n, nil
}

func parseProxyText(b []byte) (client netip.Addr, n int, err error) {
	end := bytes.Index(b[:min(len(b), proxyLineMax)], []byte("\r\n"))
	switch {
	case end < 0 && len(b) < proxyLineMax:
		return client, 0, wire.ErrShort
	case end < 0:
		return client, 0, code.Errorf(code.CloseProtocolError, "PROXY header: no end of line in %d bytes", proxyLineMax)
	}
	line, n := string(b[:end]), end+2
	fields := strings.Split(line, " ")
	if len(fields) >= 2 && fields[1] == "UNKNOWN" {
		return client, n, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return client, 0, code.Errorf(code.CloseProtocolError, "PROXY header: %.40q", line)
	}
	client, err = netip.ParseAddr(fields[2])
	if err != nil || client.Zone() != "" {
		return netip.Addr{}, 0, code.Errorf(code.CloseProtocolError, "PROXY header: %.40q", line)
	}
	return client.Unmap(), n, nil
}

// networks are those of balancers.
type networks []netip.Prefix

// parseNetworks reads addresses and networks, such as 10.0.0.7 or 10.0.0.0/8.
func parseNetworks(list []string) (networks, error) {
	var out networks
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if addr, aerr := netip.ParseAddr(s); aerr == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (n networks) contain(addr netip.Addr) bool {
	for _, p := range n {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
