package vfs_test

import (
	"errors"
	"os"
	"testing"

	"lagoon/internal/vfs"
)

// A synced file has a place, two files have two; a file in memory has none.
func TestLinuxPlace(t *testing.T) {
	fs, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	places := map[int64]bool{}
	for _, name := range []string{"a", "b"} {
		f, err := fs.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vfs.Place(f); !errors.Is(err, vfs.ErrPlaceUnknown) {
			t.Errorf("an empty file: %v", err)
		}
		if _, err := f.WriteAt(make([]byte, 1<<20), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			t.Fatal(err)
		}
		at, err := vfs.Place(vfs.File(f))
		if errors.Is(err, vfs.ErrPlaceUnknown) {
			if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
				t.Fatal("the file system of the temporary directory does not tell places")
			}
			t.Skip("this file system does not tell places")
		}
		if err != nil || at <= 0 {
			t.Errorf("%s at %d, %v", name, at, err)
		}
		places[at] = true
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(places) != 2 {
		t.Errorf("two files at %v", places)
	}
	f, err := vfs.NewMem(1).Create("m")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vfs.Place(f); !errors.Is(err, vfs.ErrPlaceUnknown) {
		t.Errorf("a file in memory: %v", err)
	}
}
