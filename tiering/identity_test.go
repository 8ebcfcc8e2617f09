package tiering_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

const cluster = "MkU3OEVBNTcwNTJENDM2Qg"

func TestClaim(t *testing.T) {
	disk := vfs.NewMem(1)
	id, err := tiering.Claim(disk, "hdd", cluster, "")
	must(t, err)
	if !id.Created || len(id.UUID) != 22 || id.Tier != "hdd" || id.ClusterID != cluster {
		t.Fatalf("new tier: %+v", id)
	}
	if left := disk.Unsynced(); len(left) > 0 {
		t.Errorf("not durable: %v", left)
	}
	for _, known := range []string{id.UUID, ""} { // "": a crash came before the catalogue knew it
		again, err := tiering.Claim(disk, "hdd", cluster, known)
		must(t, err)
		if again.UUID != id.UUID || again.Created {
			t.Errorf("known as %q: %+v", known, again)
		}
	}
	other, err := tiering.Claim(vfs.NewMem(2), "hdd", cluster, "")
	must(t, err)
	if other.UUID == id.UUID {
		t.Error("two tiers with one uuid")
	}
}

// Each refusal names the culprit and the remedy, and writes nothing.
func TestClaimRefuses(t *testing.T) {
	home := vfs.NewMem(1)
	id, err := tiering.Claim(home, "hdd", cluster, "")
	must(t, err)
	with := func(content string) *vfs.Mem {
		m := vfs.NewMem(3)
		must(t, vfs.WriteFileAtomic(m, tiering.IdentityFile, []byte(content)))
		return m
	}
	for _, c := range []struct {
		what             string
		disk             *vfs.Mem
		name, cluster    string
		known            string
		missing, foreign bool
		text             string
	}{
		{"not mounted", vfs.NewMem(2), "hdd", cluster, id.UUID, true, false, "mount its file system"},
		{"another copy", home, "hdd", cluster, "AAAAAAAAAAAAAAAAAAAAAA", true, true, "mount the right file system"},
		{"another cluster", home, "hdd", "other", "", false, true, "path of its own"},
		{"swapped", home, "ssd", cluster, "", false, true, "swapped"},
		{"no JSON", with("hello"), "hdd", cluster, "", false, false, "restore it"},
		{"empty", with(""), "hdd", cluster, "", false, false, "restore it"},
		{"zeros", with(strings.Repeat("\x00", 150)), "hdd", cluster, id.UUID, false, false, "restore it"},
		{"fields missing", with(`{"version":1}`), "hdd", cluster, "", false, false, "restore it"},
		{"newer", with(`{"version":2,"tier":"hdd","uuid":"x","cluster_id":"y"}`), "hdd", cluster, "", false, false, "version 2"},
		{"huge", with(strings.Repeat(" ", 5000)), "hdd", cluster, "", false, false, "limit 4096"},
		{"no cluster", vfs.NewMem(2), "hdd", "", "", false, false, "must be known"},
	} {
		t.Run(c.what, func(t *testing.T) {
			before := fmt.Sprint(tree(t, c.disk, "."))
			_, err := tiering.Claim(c.disk, c.name, c.cluster, c.known)
			if err == nil || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.name) {
				t.Fatalf("got %v, want %q", err, c.text)
			}
			if errors.Is(err, tiering.ErrTierMissing) != c.missing || errors.Is(err, tiering.ErrTierForeign) != c.foreign {
				t.Errorf("missing or foreign: %v", err)
			}
			var corrupt *segment.CorruptError
			if errors.As(err, &corrupt) != (c.text == "restore it") {
				t.Errorf("corrupt: %v", err)
			}
			if after := fmt.Sprint(tree(t, c.disk, ".")); after != before {
				t.Errorf("directory changed from %s to %s", before, after)
			}
		})
	}
}

// A crash while a tier is made leaves no tier or a whole one.
func TestClaimCrash(t *testing.T) {
	count := &vfs.PowerCut{}
	_, err := tiering.Claim(vfs.WithFaults(vfs.NewMem(1), count), "hdd", cluster, "")
	must(t, err)
	for point := int64(1); point <= count.Points(); point++ {
		for seed := range uint64(20) {
			disk := vfs.NewMem(seed)
			first, err := tiering.Claim(vfs.WithFaults(disk, &vfs.PowerCut{After: point}), "hdd", cluster, "")
			after := disk.Crash(vfs.CrashOptions{Seed: seed, KeepPercent: vfs.KeepRandom, Tear: true})
			known := ""
			if err == nil {
				known = first.UUID
			}
			if _, err := tiering.Claim(after, "hdd", cluster, known); err != nil {
				t.Fatalf("point %d seed %d: %v", point, seed, err)
			}
		}
	}
	_, err = tiering.Claim(vfs.WithFaults(vfs.NewMem(1), &vfs.Fault{Kinds: vfs.OpCreate, Err: syscall.EROFS}), "hdd", cluster, "")
	if !errors.Is(err, syscall.EROFS) {
		t.Fatalf("read-only disk: got %v", err)
	}
}

// FuzzIdentity: whatever the file holds, claiming the tier neither changes it nor takes another tier for this one.
func FuzzIdentity(f *testing.F) {
	const uuid = "AAECAwQFBgcICQoLDA0ODw"
	own := fmt.Sprintf(`{"version": 1, "tier": "hdd", "uuid": %q, "cluster_id": %q}`, uuid, cluster)
	f.Add([]byte(own))
	f.Add([]byte(strings.Replace(own, "hdd", "ssd", 1)))
	f.Add([]byte(strings.Replace(own, "1", "2", 1)))
	f.Add([]byte(own[:40]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		m := vfs.NewMem(1)
		must(t, vfs.WriteFileAtomic(m, tiering.IdentityFile, content))
		id, err := tiering.Claim(m, "hdd", cluster, uuid)
		if err == nil && (id.Tier != "hdd" || id.ClusterID != cluster || id.UUID != uuid || id.Created) {
			t.Errorf("claimed %+v", id)
		}
		if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is a file, but %v", err)
		}
		if after, err := vfs.ReadFile(m, tiering.IdentityFile, 1<<20); err != nil || !bytes.Equal(after, content) {
			t.Errorf("the file is now %q, %v", after, err)
		}
	})
}
