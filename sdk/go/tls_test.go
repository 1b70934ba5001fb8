package hongyan

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// authority makes a CA that no system knows, and a certificate for 127.0.0.1 signed by it.
func authority(tb testing.TB) (*x509.CertPool, tls.Certificate) {
	tb.Helper()
	sign := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		if signer == nil {
			signer = key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			tb.Fatal(err)
		}
		return der, key
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a company's own CA"},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, caKey := sign(template, template, nil)
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	leaf, key := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "im"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	return pool, tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: key}
}

// terminate is a balancer: it takes TLS and passes on what is in it.
func terminate(tb testing.TB, cert tls.Certificate, backend string) (addr string) {
	tb.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	pass := func(from net.Conn) {
		defer from.Close()
		to, err := net.Dial("tcp", backend)
		if err != nil {
			return
		}
		defer to.Close()
		go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
		_, _ = io.Copy(from, to)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go pass(c)
		}
	}()
	return l.Addr().String()
}

// TestTLSOfAnAuthorityOfOnesOwn: over each transport with TLS, a client that was given the
// authority talks; one that was not says what is wrong, and where to put it.
func TestTLSOfAnAuthorityOfOnesOwn(t *testing.T) {
	pool, cert := authority(t)
	for scheme, serve := range map[string]func(*toy, testing.TB) string{
		"tls": (*toy).serveTCP, "wss": (*toy).serveWebSocket, "https": (*toy).servePoll,
	} {
		t.Run(scheme, func(t *testing.T) {
			s := newToy()
			target := scheme + "://" + terminate(t, cert, serve(s, t))
			over := func(o *Options) { o.Endpoints, o.Dialers = []string{target}, nil }

			stranger, _ := newClient(t, s, "eve", over)
			defer stranger.Close()
			short, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			err := stranger.Connect(short)
			if err == nil {
				t.Fatal("a server of an unknown authority was believed")
			}
			for _, want := range []string{"certificate signed by unknown authority", "RootCAs of Options.TLS"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}

			given := &tls.Config{RootCAs: pool}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			alice, _ := newClient(t, s, "alice", over, func(o *Options) { o.TLS = given })
			defer alice.Close()
			if err := alice.Connect(ctx); err != nil {
				t.Fatal(err)
			}
			if sent, err := alice.Send(ctx, Outgoing{To: "bob", Text: "one"}); err != nil || sent.Message.Seq != 1 {
				t.Fatalf("sent %+v, %v", sent, err)
			}
			if given.NextProtos != nil || given.ServerName != "" {
				t.Errorf("the application's configuration was changed: %v %q", given.NextProtos, given.ServerName)
			}

			elsewhere, _ := newClient(t, s, "eve", over, func(o *Options) { o.TLS = &tls.Config{RootCAs: pool, ServerName: "im.shop.example"} })
			defer elsewhere.Close()
			wrong, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			if err := elsewhere.Connect(wrong); err == nil || !strings.Contains(err.Error(), "im.shop.example") {
				t.Errorf("a certificate for another name: %v", err)
			}
		})
	}
}
