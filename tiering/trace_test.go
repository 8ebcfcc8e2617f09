package tiering_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/tiering"

	"github.com/cockroachdb/datadriven"
)

// TestTraces shows the calls of migrations and sweeps on both tiers. Commands:
//
//	migrate [names] [fail] [publish=no]  a migration; fail: the rename of the .log fails with EIO
//	duplicate                            puts the segment back into ssd, as a crash between the last steps would
//	sweep
//
// Closes and looks at what is not there are left out; names: all but changes of names. Each command starts from what the
// one before left.
func TestTraces(t *testing.T) {
	datadriven.Walk(t, "testdata/trace", func(t *testing.T, path string) {
		f := newFixture(t, 50, 5, 3000)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var b strings.Builder
			kinds := vfs.OpAny &^ (vfs.OpClose | vfs.OpSize)
			if d.HasArg("names") {
				kinds = vfs.OpRename | vfs.OpRemove | vfs.OpSyncDir
			}
			trace := func(tier string, fsys vfs.FS) vfs.FS {
				return vfs.WithTrace(fsys, func(op vfs.Op) {
					if op.Kind&kinds != 0 && !errors.Is(op.Err, fs.ErrNotExist) {
						fmt.Fprintf(&b, "%s: %s\n", tier, strings.ReplaceAll(op.String(), testDir+"/0000000000000000", testDir+"/"))
					}
				})
			}
			var inject vfs.Injector = vfs.InjectorFunc(func(vfs.Op) error { return nil })
			if d.HasArg("fail") {
				inject = &vfs.Fault{Kinds: vfs.OpRename, Name: testDir + "/*.log", Err: syscall.EIO}
			}
			ssd, hdd := trace("ssd", f.ssd), trace("hdd", vfs.WithFaults(f.hdd, inject))
			switch d.Cmd {
			case "migrate":
				e := env()
				e.Publish = func(context.Context, tiering.Job) error {
					b.WriteString("publish\n")
					if d.HasArg("publish") {
						return tiering.ErrGone
					}
					return nil
				}
				e.Retire = func(_ tiering.Job, remove func() error) {
					b.WriteString("retire\n")
					must(t, remove())
				}
				if err := tiering.MigrateChunked(t.Context(), f.job(ssd, hdd), e, testChunk); err != nil {
					fmt.Fprintf(&b, "error: %v\n", err)
				}
			case "duplicate":
				f.install(t)
			case "sweep":
				swept, err := tiering.Sweep(tiersOf(ssd, hdd), testDir)
				must(t, err)
				fmt.Fprintf(&b, "removed %d, duplicates %d, quarantined %d\n", len(swept.Removed), len(swept.Duplicates), len(swept.Quarantined))
			default:
				d.Fatalf(t, "no command %s", d.Cmd)
			}
			return b.String()
		})
	})
}
