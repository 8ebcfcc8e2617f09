package crash

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"lagoon/internal/lab"
	"lagoon/internal/lab/labtest"
	"lagoon/internal/vfs"
	"lagoon/internal/vfs/vfstest"
	"lagoon/tests/internal/lagoontest"
)

// TestSyncIsNotBelieved: what SyncData, SyncRange, or a write to a DirectSync file, calls durable is there after the file system was shut down under it, on a machine that goes on.
// fdatasync alone says so of appends that never became part of their files (Linux 6.18: one in 24 on ext4, one in 60 on xfs).
func TestSyncIsNotBelieved(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			lagoontest.Require(t, "loop", "mkfs."+kind)
			r := seeded(t)
			disk := labtest.New(t).FileSystem(lab.FSOptions{Name: "disk", Type: kind, Bytes: 1 << 30})
			n, lost := cycles(t, 15), 0
			const files = 8
			for i := range n {
				acked, order := make([]int64, files), r.Perm(files)
				var wg sync.WaitGroup
				blocks := make(chan struct{}) // one for each that was written
				fsys, err := vfs.OS(disk.Path())
				if err != nil {
					t.Fatal(err)
				}
				name := func(k int) string { return fmt.Sprintf("%d-%d", i, k) }
				for _, k := range order {
					f, err := fsys.Create(name(k))
					if err != nil {
						t.Fatal(err)
					}
					end := int64(math.MaxInt64)
					switch k % 4 {
					case 1: // grows, around the cache
						f = direct(t, fsys, f)
					case 3: // was written before, as the commit journal is
						end = 16 << 20
						if _, err := f.WriteAt(make([]byte, end), 0); err != nil {
							t.Fatal(err)
						}
						if err := f.SyncData(); err != nil {
							t.Fatal(err)
						}
						f = direct(t, fsys, f)
					}
					wg.Go(func() {
						defer f.Close()
						block := vfstest.Aligned(4096*(1+k), 4096)
						for i := range block {
							block[i] = byte('a' + k)
						}
						for at := int64(0); at+int64(len(block)) <= end; at += int64(len(block)) {
							_, err := f.WriteAt(block, at)
							if err != nil {
								if _, again := f.WriteAt(block, at); k%2 == 1 && again == nil {
									t.Errorf("cut %d, file %d: a write succeeds after one that failed (%v)", i, k, err)
								}
								return
							}
							switch k % 4 {
							case 0:
								err = f.SyncData()
							case 2:
								err = f.SyncRange(at, int64(len(block)))
							}
							if err != nil {
								return
							}
							acked[k] = at + int64(len(block))
							select {
							case blocks <- struct{}{}:
							default: // the cut is on its way
							}
						}
					})
				}
				ended := make(chan struct{})
				go func() {
					wg.Wait()
					close(ended)
				}()
				for range 1 + r.IntN(100) { // the cut comes while they write
					select {
					case <-blocks:
					case <-ended:
					}
				}
				if err := disk.Cut(uint32(lab.CutLogFlush + r.IntN(2))); err != nil {
					t.Fatal(err)
				}
				<-ended
				runtime.GC() // nobody has a use for fsys any more: its descriptor of the directory goes
				disk.Unmount()
				disk.Mount()
				for k := range files {
					b, err := os.ReadFile(filepath.Join(disk.Path(), name(k)))
					if err != nil && acked[k] > 0 {
						t.Errorf("cut %d: %v", i, err)
						continue
					}
					if kept := int64(len(b) - len(bytes.TrimLeft(b, string(rune('a'+k))))); kept < acked[k] {
						lost++
						t.Errorf("cut %d, file %d: %d of %d bytes that were synced are there", i, k, kept, acked[k])
					}
					_ = os.Remove(filepath.Join(disk.Path(), name(k)))
				}
			}
			t.Logf("%s: %d cuts, %d files, %d short", kind, n, n*files, lost)
		})
	}
}

// direct opens a file again, around the page cache.
func direct(t *testing.T, fsys vfs.FS, f vfs.File) vfs.File {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open(f.Name(), vfs.DirectSync)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
