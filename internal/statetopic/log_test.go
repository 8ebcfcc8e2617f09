package statetopic_test

import (
	"testing"

	"lagoon/internal/statetopic"
)

func TestPartitionFor(t *testing.T) {
	// By java.lang.String.hashCode; with surrogates, and Integer.MIN_VALUE.
	for id, want := range map[string]int32{"": 0, "a": 47, "console": 9, "group-1": 49, "größe": 7, "😀 smile": 33, "polygenelubricants": 0} {
		if got := statetopic.PartitionFor(id, 50); got != want {
			t.Errorf("%q: %d, want %d", id, got, want)
		}
	}
}
