package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// buckets compares which buckets may be written in this database with the map (R17): one
// that is open in two databases is written in both when a das has the wrong map.
func (d *database) buckets(ctx context.Context) Finding {
	wanted := "as the map says"
	if d.shard.Buckets == nil {
		if wanted = "all open"; len(d.target.Shards) > 1 {
			return unchecked("as the map says", "the map of the shards is not known: the control centre has none, or does not answer")
		}
	}
	open, epochs, err := d.openBuckets(ctx)
	var server *mysql.MySQLError
	switch {
	case errors.As(err, &server) && server.Number == errNoTable:
		return Finding{} // the check of the schema says so
	case err != nil:
		return unchecked(wanted, err)
	}
	var alien, closed []uint32
	for id := range uint32(bucketCount) {
		mine := d.shard.Buckets == nil || d.shard.Buckets(id)
		switch {
		case open[id] && !mine:
			alien = append(alien, id)
		case !open[id] && mine:
			closed = append(closed, id)
		}
	}
	found := fmt.Sprintf("%d open, epochs %s", len(open), epochs)
	if len(alien) > 0 {
		return violation(found+"; not this shard's, yet open: "+spans(alien), wanted,
			"a das with an old map could write them here. Where none is being moved: UPDATE bucket SET open=0 WHERE id IN (those)")
	}
	return expect(len(closed) == 0, Violation, found+closedText(closed), wanted,
		"conversations and users of these buckets are refused. If no move is under way (hongyan db move-buckets), end the one that was broken off by running it again")
}

func closedText(ids []uint32) string {
	if len(ids) == 0 {
		return ""
	}
	return "; this shard's, yet closed: " + spans(ids)
}

// bucketCount is store.Buckets, for all time.
const bucketCount = 1024

func (d *database) openBuckets(ctx context.Context) (open map[uint32]bool, epochs string, err error) {
	rows, err := d.conn.QueryContext(ctx, "SELECT id,epoch,open FROM bucket")
	if err != nil {
		return nil, "", err
	}
	defer rows.Close()
	open = make(map[uint32]bool)
	var low, high uint64
	for rows.Next() {
		var id uint32
		var epoch uint64
		var isOpen bool
		if err := rows.Scan(&id, &epoch, &isOpen); err != nil {
			return nil, "", err
		}
		if !isOpen {
			continue
		}
		open[id] = true
		if low == 0 || epoch < low {
			low = epoch
		}
		high = max(high, epoch)
	}
	if epochs = fmt.Sprint(low); high > low {
		epochs = fmt.Sprintf("%d to %d", low, high)
	}
	return open, epochs, rows.Err()
}

// spans writes ascending numbers as 1-4, 7.
func spans(ids []uint32) string {
	var parts []string
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		if j == i {
			parts = append(parts, fmt.Sprint(ids[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", ids[i], ids[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
