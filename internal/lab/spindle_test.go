package lab

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lagoon/internal/lab/spindle"
)

// TestDriveAnswersEverybody: requests from many threads are all answered, no sooner than the model allows, and a flush finds an
// empty cache.
func TestDriveAnswersEverybody(t *testing.T) {
	fast := spindle.Desktop(1 << 30)
	fast.SeekMin, fast.SeekMax, fast.Turn = 20*time.Microsecond, 200*time.Microsecond, 100*time.Microsecond
	d, err := newDrive(fast)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 50 {
				began := time.Now()
				<-d.submit(spindle.Op(rand.IntN(3)), rand.Int64N(1<<18)*4096, 4096)
				if took := time.Since(began); took < fast.Command {
					t.Errorf("a request took %v, the drive's own time is %v", took, fast.Command)
				}
			}
		})
	}
	group.Wait()
	<-d.submit(spindle.Flush, 0, 0)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.model.Dirty() != 0 || len(d.waiting) != 0 {
		t.Errorf("%d bytes in the cache, %d requests without an answer", d.model.Dirty(), len(d.waiting))
	}
}
