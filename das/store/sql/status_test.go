package sqlstore_test

import (
	"testing"

	"hongyan/das/store"
	sqlstore "hongyan/das/store/sql"
)

func statusOf(t *testing.T, cfg sqlstore.Config) sqlstore.Status {
	t.Helper()
	st, err := sqlstore.StatusOf(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStatusBeforeAndAfterMigrating(t *testing.T) {
	onServers(t, func(t *testing.T, server server) {
		cfg := server.database(t)
		st := statusOf(t, cfg)
		if len(st.Pending()) == 0 || st.Open+st.Closed != 0 || st.Server == "" || st.Version == "" || !st.Role.Writable {
			t.Errorf("before: %+v", st)
		}
		if _, err := sqlstore.Migrate(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		st = statusOf(t, cfg)
		if len(st.Pending()) != 0 || st.Open != store.Buckets || st.Role != (store.Role{Writable: true, Epoch: 1}) || st.Replica {
			t.Errorf("after: %+v", st)
		}
	})
}

func TestStatusOfAPair(t *testing.T) {
	onPairs(t, func(t *testing.T, p *pair) {
		source, replica := p.schema(t)
		st := statusOf(t, source)
		if !st.SemiSync || st.Replicas != 1 || st.Replica {
			t.Errorf("source: %+v", st)
		}
		eventually(t, "the replica has the tables, and that they are there", func() bool {
			st := statusOf(t, replica)
			return st.Open == store.Buckets && len(st.Pending()) == 0
		})
		st = statusOf(t, replica)
		if st.Role != (store.Role{Epoch: 1}) || !st.Replica || !st.Replicating || len(st.Pending()) != 0 {
			t.Errorf("replica: %+v", st)
		}
	})
}
