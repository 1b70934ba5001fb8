// Package e2e uses Hongyan as its users do: the binary, real sockets, the SDK, curl's view
// of the HTTP API, a Kitex client. The same tests run over 'hongyan dev' and over one
// process a tier.
package e2e
