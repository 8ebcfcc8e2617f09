package differential

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/internal/lagoontest"
)

// sequence is a few requests about one API.
type sequence struct {
	key  int16
	name string
	from int16 // the first version in which it makes sense
	to   int16 // the last one, 0: no bound
	run  func(x *exchange)

	needs int16 // a further API that the set-up asks, 0: none
}

// fewest is how many sequences there must be at least, each counted once per version.
const fewest = 300

// TestDifferential runs every sequence on both brokers. About 30 s, most of it Kafka's start and its making of topics.
func TestDifferential(t *testing.T) {
	lagoontest.Require(t, "kafka")
	lagoon, kafka := pair(t)
	common, highest := map[int16][2]int16{}, map[int16]int16{}
	for key, l := range lagoon.ranges {
		if k, ok := kafka.ranges[key]; ok {
			r := [2]int16{max(l[0], k[0]), min(l[1], k[1])}
			common[key], highest[key] = r, r[1]
		}
	}
	type job struct {
		seq     sequence
		version int16
		prefix  string
	}
	var jobs []job
	with := map[int16]bool{}
	for i, seq := range allSequences() {
		r, ok := common[seq.key]
		if _, also := common[seq.needs]; !ok || !also {
			continue // what Lagoon does not serve docs/compatibility.md names
		}
		with[seq.key] = true
		for _, v := range versions(seq, r) {
			jobs = append(jobs, job{seq, v, fmt.Sprintf("s%03dv%d", i, v)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(common)) {
		if !with[key] {
			t.Errorf("%s (key %d) is served by both and has no sequence", kmsg.NameForKey(key), key)
		}
	}
	if len(jobs) < fewest {
		t.Errorf("%d sequences, want %d at least", len(jobs), fewest)
	}

	var mu sync.Mutex
	var all []found
	work := make(chan job)
	var workers sync.WaitGroup
	for range 8 { // most of the time goes into waiting for Kafka
		workers.Go(func() {
			for j := range work {
				var l, k *exchange
				var lerr, kerr error
				var both sync.WaitGroup
				both.Go(func() { l, lerr = run(t, lagoon, j.seq, j.prefix, j.version, highest) })
				both.Go(func() { k, kerr = run(t, kafka, j.seq, j.prefix, j.version, highest) })
				both.Wait()
				for _, err := range []error{lerr, kerr} {
					if err != nil {
						t.Errorf("%s %q v%d: %v", kmsg.NameForKey(j.seq.key), j.seq.name, j.version, err)
					}
				}
				if lerr == nil && kerr == nil {
					fs := compare(j.seq, j.version, l, k)
					mu.Lock()
					all = append(all, fs...)
					mu.Unlock()
				}
			}
		})
	}
	for _, j := range jobs {
		work <- j
	}
	close(work)
	workers.Wait()

	met := make([]int, len(differences))
	unexplained := 0
	for _, f := range all {
		i := slices.IndexFunc(differences, func(d difference) bool { return d.covers(f) })
		if i < 0 {
			unexplained++
			t.Errorf("unexplained: %s", f)
			continue
		}
		met[i]++
	}
	for i, d := range differences {
		if met[i] == 0 && !d.rare {
			t.Errorf("no longer met, take it out: %s %s: %s", d.api, d.path, d.what)
		}
	}
	t.Logf("%d sequences over %d keys; %d fields differ, %d of them unexplained", len(jobs), len(with), len(all), unexplained)
}

// versions are those in which a sequence is run.
func versions(seq sequence, r [2]int16) []int16 {
	low, high := max(r[0], seq.from), r[1]
	if seq.to > 0 {
		high = min(high, seq.to)
	}
	if low > high {
		return nil
	}
	if os.Getenv("LAGOON_EXHAUSTIVE") == "1" {
		var all []int16
		for v := low; v <= high; v++ {
			all = append(all, v)
		}
		return all
	}
	return slices.Compact([]int16{low, high})
}
