package groups_test

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/groups"
	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/groupstest"
)

// TestShardThatDoesNotAnswer: while a record is being written on a device that does not answer, the groups of other shards are listed and counted.
func TestShardThatDoesNotAnswer(t *testing.T) {
	const deaf, well = "b", "a" // the shards of two that they hash to: 0 and 1
	bad := groupstest.NewDeaf()
	logs := []groups.Log{bad, &groupstest.Log{}}
	registry := prometheus.NewRegistry()
	c, err := groups.New(groups.Options{
		Log:    func(p int32) (groups.Log, bool) { return logs[p], true },
		Exists: func(string, int32) bool { return true },
		Topics: func() groups.Topics { return fixedTopics{} },
		Logger: slog.New(slog.DiscardHandler), Registerer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(2)
	var wg sync.WaitGroup
	defer c.Close()
	defer wg.Wait()
	defer close(bad.Free)
	put := func(group string) {
		for err := classic.LoadInProgress; err == classic.LoadInProgress; { // at once
			_, _, err = c.Commit(commit(group, "orders", 0, 1))
		}
	}
	put(well)
	wg.Go(func() { put(deaf) })
	<-bad.Hung
	for what, look := range map[string]func(){
		"a list": func() {
			if list, err := c.List(nil); err != classic.LoadInProgress || len(list) != 1 || list[0].Group != well {
				t.Errorf("%+v, %d", list, err)
			}
		},
		"an overview": func() {
			if list, loading := c.Overview(); !loading || len(list) != 1 || list[0].Group != well {
				t.Errorf("%+v, %v", list, loading)
			}
		},
		"metrics": func() {
			if _, err := registry.Gather(); err != nil {
				t.Error(err)
			}
		},
	} {
		done := make(chan struct{})
		wg.Go(func() { look(); close(done) })
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Errorf("%s: waits for a device", what)
		}
	}
}
