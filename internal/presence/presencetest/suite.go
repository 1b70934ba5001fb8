// Package presencetest is the suite that every presence.Cache passes.
package presencetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"hongyan/internal/presence"
)

// Backend is one implementation under test.
type Backend struct {
	// Open returns an empty cache that believes routes for ttl and remembers users for remember.
	Open func(t *testing.T, ttl, remember time.Duration) presence.Cache
	// Flush empties the cache as a lost server would.
	Flush func(t *testing.T, c presence.Cache)
	// Sleep lets time pass for the cache: virtual, or a server's clock moved.
	Sleep func(d time.Duration)
}

type suite struct {
	*testing.T
	Backend
	cache presence.Cache
}

const (
	ttl      = 60 * time.Second
	remember = time.Hour
)

// Run runs the suite. wrap, where not nil, runs each case, e.g. within a synctest bubble.
func Run(t *testing.T, b Backend, wrap func(*testing.T, func(*testing.T))) {
	if wrap == nil {
		wrap = func(t *testing.T, run func(*testing.T)) { run(t) }
	}
	cases := []struct {
		name string
		run  func(*suite)
	}{
		{"MF-05 all connections of a user and the fields of each", fields},
		{"a user never written is not known", unknown},
		{"removed means known to be offline", removed},
		{"R21 flushed means not known", flushed},
		{"routes expire, the user stays known, then is forgotten", expire},
		{"put again lives on", renew},
		{"a lower session epoch never replaces a higher", epochs},
		{"an expired route is no obstacle to a lower epoch", expiredEpoch},
		{"a late logout cannot remove a newer login", lateLogout},
		{"many changes at once, those of one user in order", changes},
		{"DD-12 tenants are apart", tenants},
		{"many users in the order asked", order},
		{"concurrent use", concurrent},
		{"ended context and closed cache are errors", errorsNotOffline},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			wrap(t, func(t *testing.T) {
				cache := b.Open(t, ttl, remember)
				defer cache.Close()
				c.run(&suite{t, b, cache})
			})
		})
	}
}

var alice = presence.User{Tenant: "t", UID: "alice"}

func route(device string, epoch uint64) presence.Route {
	return presence.Route{Device: device, Class: "mobile", Platform: "ios", Gateway: "10.0.0.1:7000", Boot: "g1",
		Conn: 1<<63 + epoch, SessionEpoch: epoch, IP: "192.0.2.1", LoginMS: 1_700_000_000_000}
}

func (s *suite) put(user presence.User, routes ...presence.Route) {
	s.Helper()
	if err := s.cache.Put(s.Context(), user, routes...); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) remove(user presence.User, device string, epoch uint64) {
	s.Helper()
	if err := s.cache.Remove(s.Context(), user, device, epoch); err != nil {
		s.Fatal(err)
	}
}

// want fails unless the cache knows exactly these routes of the user.
func (s *suite) want(user presence.User, known bool, routes ...presence.Route) {
	s.Helper()
	got, err := s.cache.Get(s.Context(), []presence.User{user})
	if err != nil || len(got) != 1 {
		s.Fatalf("get %v: %v, %v", user, got, err)
	}
	if got[0].Known != known || len(got[0].Routes) != len(routes) {
		s.Fatalf("%v: got %+v, want known %v with %+v", user, got[0], known, routes)
	}
	for i := range routes {
		if got[0].Routes[i] != routes[i] {
			s.Fatalf("%v: route %d is %+v, want %+v", user, i, got[0].Routes[i], routes[i])
		}
	}
}

func fields(s *suite) {
	s.put(alice, route("phone", 3), route("laptop", 2))
	s.put(alice, route("pad", 4))
	s.want(alice, true, route("laptop", 2), route("pad", 4), route("phone", 3))
}

func unknown(s *suite) { s.want(alice, false) }

func removed(s *suite) {
	s.put(alice, route("phone", 1))
	s.remove(alice, "phone", 1)
	s.want(alice, true)
	bob := presence.User{Tenant: "t", UID: "bob"}
	s.remove(bob, "phone", 1)
	s.want(bob, true)
}

// Seen to fail with a Get that answers Known for a missing user: the home of a user whose
// cache was flushed would then take him for offline.
func flushed(s *suite) {
	s.put(alice, route("phone", 1))
	s.Flush(s.T, s.cache)
	s.want(alice, false)
	s.put(alice, route("phone", 1))
	s.want(alice, true, route("phone", 1))
}

func expire(s *suite) {
	s.put(alice, route("phone", 1))
	s.Sleep(ttl - time.Second)
	s.put(alice, route("pad", 1))
	s.want(alice, true, route("pad", 1), route("phone", 1))
	s.Sleep(2 * time.Second)
	s.want(alice, true, route("pad", 1))
	s.Sleep(ttl)
	s.want(alice, true)
	s.Sleep(remember)
	s.want(alice, false)
}

func renew(s *suite) {
	for range 10 {
		s.put(alice, route("phone", 1))
		s.Sleep(ttl / 3)
	}
	s.want(alice, true, route("phone", 1))
}

func epochs(s *suite) {
	s.put(alice, route("phone", 5))
	s.put(alice, route("phone", 4), route("pad", 1))
	s.want(alice, true, route("pad", 1), route("phone", 5))
	again := route("phone", 5)
	again.Gateway = "10.0.0.2:7000"
	s.put(alice, again)
	s.want(alice, true, route("pad", 1), again)
	s.put(alice, route("phone", 6))
	s.want(alice, true, route("pad", 1), route("phone", 6))
}

func expiredEpoch(s *suite) {
	s.put(alice, route("phone", 5))
	s.Sleep(ttl + time.Second)
	s.put(alice, route("phone", 1))
	s.want(alice, true, route("phone", 1))
}

func lateLogout(s *suite) {
	s.put(alice, route("phone", 5))
	s.remove(alice, "phone", 4)
	s.want(alice, true, route("phone", 5))
	s.remove(alice, "other", 9)
	s.want(alice, true, route("phone", 5))
	s.remove(alice, "phone", 6)
	s.want(alice, true)
}

func changes(s *suite) {
	bob, carol := presence.User{Tenant: "t", UID: "bob"}, presence.User{Tenant: "t", UID: "carol"}
	s.put(bob, route("phone", 7))
	many := []presence.Change{
		{User: alice, Routes: []presence.Route{route("phone", 1), route("pad", 2)}},
		{User: bob, Device: "phone", SessionEpoch: 6}, // late
		{User: alice, Device: "phone", SessionEpoch: 1},
		{User: carol, Device: "phone", SessionEpoch: 1},
		{User: alice, Routes: []presence.Route{route("laptop", 4)}},
		{User: alice, Routes: []presence.Route{route("laptop", 3)}},
	}
	if err := s.cache.Apply(s.Context(), many); err != nil {
		s.Fatal(err)
	}
	s.want(alice, true, route("laptop", 4), route("pad", 2))
	s.want(bob, true, route("phone", 7))
	s.want(carol, true)
	if err := s.cache.Apply(s.Context(), nil); err != nil {
		s.Fatal(err)
	}
	many = many[:0]
	for i := range 1000 {
		many = append(many, presence.Change{User: presence.User{UID: fmt.Sprint(i)}, Routes: []presence.Route{route("d", uint64(i))}})
	}
	if err := s.cache.Apply(s.Context(), many); err != nil {
		s.Fatal(err)
	}
	s.want(many[999].User, true, route("d", 999))
}

func tenants(s *suite) {
	s.put(alice, route("phone", 1))
	s.want(presence.User{Tenant: "u", UID: "alice"}, false)
	s.want(presence.User{Tenant: "", UID: "t/alice"}, false)
}

func order(s *suite) {
	var users []presence.User
	for i := range 100 {
		users = append(users, presence.User{Tenant: "t", UID: fmt.Sprint(i)})
		if i%2 == 0 {
			s.put(users[i], route("d", uint64(i)+1))
		}
	}
	users = append(users, users[0])
	got, err := s.cache.Get(s.Context(), users)
	if err != nil || len(got) != len(users) {
		s.Fatalf("%d entries, %v", len(got), err)
	}
	for i, e := range got {
		if e.Known != (i%2 == 0) || e.Known && e.Routes[0].SessionEpoch != uint64(i%100)+1 {
			s.Fatalf("entry %d: %+v", i, e)
		}
	}
	if got, err := s.cache.Get(s.Context(), nil); err != nil || len(got) != 0 {
		s.Fatalf("no users: %v, %v", got, err)
	}
}

func concurrent(s *suite) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				user := presence.User{Tenant: "t", UID: fmt.Sprint(n % 5)}
				err := errors.Join(
					s.cache.Put(s.Context(), user, route(fmt.Sprint(i), uint64(n)+1)),
					s.cache.Remove(s.Context(), user, fmt.Sprint(i+1), uint64(n)))
				if _, gerr := s.cache.Get(s.Context(), []presence.User{user}); gerr != nil || err != nil {
					s.Error(err, gerr)
				}
			}
		})
	}
	wg.Wait()
}

func errorsNotOffline(s *suite) {
	ended, end := context.WithCancel(s.Context())
	end()
	if _, err := s.cache.Get(ended, []presence.User{alice}); err == nil {
		s.Error("get with an ended context answered")
	}
	if err := s.cache.Close(); err != nil {
		s.Fatal(err)
	}
	if _, err := s.cache.Get(s.Context(), []presence.User{alice}); !errors.Is(err, presence.ErrClosed) {
		s.Errorf("get from a closed cache: %v", err)
	}
	if err := s.cache.Put(s.Context(), alice, route("phone", 1)); !errors.Is(err, presence.ErrClosed) {
		s.Errorf("put to a closed cache: %v", err)
	}
	if err := s.cache.Apply(s.Context(), []presence.Change{{User: alice, Device: "d"}}); !errors.Is(err, presence.ErrClosed) {
		s.Errorf("changes to a closed cache: %v", err)
	}
}
