package shards

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"hongyan/internal/control"
)

// Announcement is what a das says of the shards it was started with, as control.Instance.Shards:
// their names with commas between, escaped as in a query.
func Announcement(names []string) string {
	escaped := make([]string, len(names))
	for i, name := range names {
		escaped[i] = url.QueryEscape(name)
	}
	return strings.Join(escaped, ",")
}

// Known tells an error that names those instances of das that were not started with a shard:
// they would refuse a map that names it, and go on asking the database where a bucket was.
func Known(dases control.Members, shard string) error {
	name := url.QueryEscape(shard)
	var lacking []string
	for _, in := range dases.Instances {
		if !slices.Contains(strings.Split(in.Shards, ","), name) {
			lacking = append(lacking, in.Addr)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return fmt.Errorf("shard %s is not known to das %s: restart it with the shard in databases.shards", shard, strings.Join(lacking, ", "))
}
