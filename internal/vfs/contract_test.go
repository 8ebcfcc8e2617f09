package vfs_test

import (
	"testing"

	"lagoon/internal/vfs"
	"lagoon/internal/vfs/vfstest"
)

func newOS(t *testing.T) vfs.FS {
	t.Helper()
	fsys, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

func newMem(t *testing.T) vfs.FS {
	t.Helper()
	m := vfs.NewMem(1)
	m.SetDirect(vfs.Alignment{Mem: 512, Off: 512})
	return m
}

func TestContract(t *testing.T) {
	never := &vfs.Fault{Kinds: vfs.OpAny, Nth: 1 << 60}
	for name, newFS := range map[string]func(t *testing.T) vfs.FS{
		"OS":           newOS,
		"Mem":          newMem,
		"MemNoDirect":  func(*testing.T) vfs.FS { return vfs.NewMem(2) },
		"MemAfterKill": func(t *testing.T) vfs.FS { return newMem(t).(*vfs.Mem).Kill() },
		"MemAfterCrash": func(t *testing.T) vfs.FS {
			return newMem(t).(*vfs.Mem).Crash(vfs.CrashOptions{KeepPercent: vfs.KeepRandom})
		},
		"FaultsOS":  func(t *testing.T) vfs.FS { return vfs.WithFaults(newOS(t), never) },
		"FaultsMem": func(t *testing.T) vfs.FS { return vfs.WithFaults(newMem(t), never) },
		"TraceOS":   func(t *testing.T) vfs.FS { return vfs.WithTrace(newOS(t), func(vfs.Op) {}) },
		"TraceMem": func(t *testing.T) vfs.FS {
			return vfs.WithTrace(vfs.WithFaults(newMem(t), never), func(vfs.Op) {})
		},
	} {
		t.Run(name, func(t *testing.T) { vfstest.Test(t, newFS) })
	}
	if never.Fired() != 0 || never.Seen() == 0 {
		t.Errorf("fired %d, seen %d", never.Fired(), never.Seen())
	}
}
