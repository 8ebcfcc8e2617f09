package partition_test

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

// A disk so full that no log start can be written, and a reader that has the oldest segment: what retention has taken out of the log and could
// not delete is deleted when there is space for the log start again, and not only after a restart.
func TestRetentionOnFullDiskGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		mem := vfs.NewMem(1)
		s := open(t, nil, vfs.WithFaults(mem, vfs.InjectorFunc(func(op vfs.Op) error {
			if full.Load() && op.Kind == vfs.OpWrite && strings.HasPrefix(op.Name, segment.LogStartFile) {
				return syscall.ENOSPC
			}
			return nil
		})))
		defer closeStore(t, s)
		l := load(t, s, smallSegments(), 1)
		for range 20 {
			produce(t, l, batch("b", 1, 1000, nil, 1))
		}
		logs := func() (n int) {
			entries, err := mem.List("orders-0")
			noErr(t, err)
			for _, e := range entries {
				if isLog(e.Name) {
					n++
				}
			}
			return n
		}
		chunk := hold(t, l)
		cfg := smallSegments()
		cfg.RetentionBytes = 1
		s.SetConfig("orders", cfg)
		full.Store(true)
		s.Retain(s.Now())
		for range 8 {
			produce(t, l, batch("b", 1, 1000, nil, 1))
		}
		grown := logs()
		s.Retain(s.Now())
		if n := logs(); n != grown {
			t.Errorf("%d segments of %d are left: the oldest is not gone, and younger ones are", n, grown)
		}
		chunk.Release()
		full.Store(false)
		s.Retain(s.Now())
		synctest.Wait()
		if n, want := logs(), len(l.Segments()); n != want {
			t.Errorf("%d segments are on the disk, %d in the log", n, want)
		}
		var used int64
		for _, d := range s.Dirs() {
			used += d.UsedBytes
		}
		if used != l.SizeBytes() {
			t.Errorf("%d bytes count as used, the log has %d", used, l.SizeBytes())
		}
	})
}
