package statetopic_test

import (
	"context"
	"errors"
	"testing"

	"lagoon/internal/partition"
	"lagoon/internal/statetopic"
	"lagoon/segment"
)

// tail is a log of two batches, of which the second becomes durable while somebody waits for it.
type tail struct {
	statetopic.Log
	durable segment.Offset
	fenced  error
}

func (l *tail) Offsets() partition.Offsets {
	return partition.Offsets{HighWatermark: l.durable, LastStable: l.durable, End: 2}
}

func (l *tail) Durable(_ context.Context, next segment.Offset) error {
	l.durable = max(l.durable, next)
	return l.fenced
}

func (l *tail) Scan(_ context.Context, from segment.Offset, fn func(h segment.BatchHeader, batch []byte) (bool, error)) (int, error) {
	for o := from; o < l.durable; o++ {
		if more, err := fn(segment.BatchHeader{BaseOffset: o}, nil); err != nil || !more {
			return 0, err
		}
	}
	return 0, nil
}

// TestLoadWaitsForTheEnd: what is written and not yet durable when a coordinator begins is loaded as well, or nothing is.
func TestLoadWaitsForTheEnd(t *testing.T) {
	var got []segment.Offset
	note := func(h segment.BatchHeader, _ []byte) (bool, error) {
		got = append(got, h.BaseOffset)
		return true, nil
	}
	if _, err := statetopic.Load(t.Context(), &tail{durable: 1}, note); err != nil || len(got) != 2 {
		t.Errorf("loaded %v, %v", got, err)
	}
	fenced := errors.New("fenced")
	if _, err := statetopic.Load(t.Context(), &tail{durable: 1, fenced: fenced}, note); !errors.Is(err, fenced) || len(got) != 2 {
		t.Errorf("of a fenced log: loaded %v, %v", got, err)
	}
}

func TestPartitionFor(t *testing.T) {
	// By java.lang.String.hashCode; with surrogates, and Integer.MIN_VALUE.
	for id, want := range map[string]int32{"": 0, "a": 47, "console": 9, "group-1": 49, "größe": 7, "😀 smile": 33, "polygenelubricants": 0} {
		if got := statetopic.PartitionFor(id, 50); got != want {
			t.Errorf("%q: %d, want %d", id, got, want)
		}
	}
}
