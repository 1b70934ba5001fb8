package das

import (
	"hongyan/das/store"
	"hongyan/internal/conv"
)

// fenced answers which items a fence hit.
type fenced struct {
	convs, users, sessions map[store.Key]bool
	buckets                map[uint32]bool
}

func newFenced(f *store.FenceError) *fenced {
	x := &fenced{
		convs: keys(f.Convs), users: keys(f.Users), sessions: keys(f.Sessions),
		buckets: make(map[uint32]bool),
	}
	for _, b := range f.Buckets {
		x.buckets[b] = true
	}
	for _, m := range f.Duplicates {
		x.convs[m.Conv] = true
	}
	return x
}

func keys(list []store.Key) map[store.Key]bool {
	m := make(map[store.Key]bool, len(list))
	for _, k := range list {
		m[k] = true
	}
	return m
}

func (f *fenced) bucket(tenant, id string) bool {
	return len(f.buckets) > 0 && f.buckets[bucketOf(store.Key{Tenant: tenant, ID: id})]
}

func (f *fenced) user(tenant, uid string) bool {
	return f.users[store.Key{Tenant: tenant, ID: uid}] || f.bucket(tenant, uid)
}

func (f *fenced) session(tenant, uid string) bool {
	return f.sessions[store.Key{Tenant: tenant, ID: uid}] || f.bucket(tenant, uid)
}

// append tells whether an append to the conversation is hit, in its log or in the rows of
// its members.
func (f *fenced) append(tenant, convID string) bool {
	k := store.Key{Tenant: tenant, ID: convID}
	return f.convs[k] || f.bucket(tenant, convID) || f.members(tenant, convID)
}

func (f *fenced) members(tenant, convID string) bool {
	id, err := conv.Parse(convID)
	if err != nil {
		return false
	}
	return f.user(tenant, id.B) || id.Kind == conv.KindPrivate && f.user(tenant, id.A)
}
