// Package idl embeds the contracts: the client protocol, the tiers' RPC, what travels
// through the queue, and the platform's interface.
package idl

import (
	"embed"
	"io/fs"
)

//go:embed *.proto
var files embed.FS

// Files holds the .proto files, by the names they import each other with.
func Files() fs.FS { return files }
