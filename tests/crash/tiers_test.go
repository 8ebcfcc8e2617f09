package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tierFiles is what the directories of one partition hold, by tier, hot to cold: base offset → suffixes.
type tierFiles [2]map[int64]map[string]int64

// listPartition reads both tiers' directories of a partition. strange are names that no orderly partition has.
func listPartition(t *testing.T, roots [2]string, dir string) (files tierFiles, strange []string) {
	t.Helper()
	for i, root := range roots {
		files[i] = map[int64]map[string]int64{}
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := e.Name()
			if name == "partition.metadata" || name == "leader-epoch-checkpoint" || strings.HasSuffix(name, ".snapshot") ||
				strings.HasSuffix(name, ".lagoon-batches") {
				continue
			}
			info, err := e.Info()
			if err != nil { // went away: a file that is being replaced
				continue
			}
			base, suffix, ok := segmentName(name)
			if !ok {
				strange = append(strange, filepath.Join(root, dir, name))
				continue
			}
			if files[i][base] == nil {
				files[i][base] = map[string]int64{}
			}
			files[i][base][suffix] = info.Size()
		}
	}
	return files, strange
}

// segmentName takes a name with a base offset apart.
func segmentName(name string) (base int64, suffix string, ok bool) {
	if len(name) <= 20 {
		return 0, "", false
	}
	base, err := strconv.ParseInt(name[:20], 10, 64)
	return base, name[20:], err == nil
}

// partitions lists the partition directories of all tiers.
func partitions(t *testing.T, roots [2]string) []string {
	t.Helper()
	found := map[string]bool{}
	for _, root := range roots {
		entries, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != "lagoon-metadata" && e.Name() != "lost+found" {
				found[e.Name()] = true
			}
		}
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// checkOneCopy looks at both tiers of a broker that moves nothing at the moment: each segment once, nothing left over, and nothing
// set aside (but by a power cut: a segment behind a torn one, which nobody was promised). Files that are just being written
// have a moment to get their names.
func checkOneCopy(t *testing.T, roots [2]string, powerCut bool) (segments int) {
	t.Helper()
	var faults []string
	look := func() bool {
		segments, faults = copies(t, roots, powerCut)
		return len(faults) == 0
	}
	if look() {
		return segments
	}
	news := make(chan struct{}, 1)
	w := newWatcher(t, roots[:]...)
	w.on(func(fileEvent) {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	defer w.on(nil)
	late := time.NewTimer(2 * time.Second)
	defer late.Stop()
	for waiting := true; waiting; {
		if look() {
			return segments
		}
		if slices.ContainsFunc(faults, func(s string) bool { return !strings.HasSuffix(s, ".tmp") }) {
			break
		}
		select {
		case <-news:
		case <-late.C:
			waiting = false
		}
	}
	t.Errorf("tiers after a restart:\n%s", strings.Join(faults, "\n"))
	return segments
}

func copies(t *testing.T, roots [2]string, powerCut bool) (segments int, faults []string) {
	t.Helper()
	for _, dir := range partitions(t, roots) {
		files, strange := listPartition(t, roots, dir)
		for _, name := range strange {
			if powerCut && filepath.Base(name) == "quarantine" {
				continue
			}
			faults = append(faults, "stranger "+name)
		}
		for base := range files[0] {
			if _, hot := files[0][base][".log"]; hot {
				if _, cold := files[1][base][".log"]; cold {
					faults = append(faults, fmt.Sprintf("two copies of %s/%020d", dir, base))
				}
			}
		}
		for i := range files {
			for base, suffixes := range files[i] {
				_, whole := suffixes[".log"]
				if whole {
					segments++
				}
				for suffix := range suffixes {
					switch {
					case suffix == ".log":
					case (suffix == ".index" || suffix == ".timeindex" || suffix == ".lagoon-index") && whole:
					default:
						faults = append(faults, fmt.Sprintf("left over: %s/%s/%020d%s", roots[i], dir, base, suffix))
					}
				}
			}
		}
	}
	return segments, faults
}

// scene names what a kill left of a migration, before anybody cleaned up.
func scene(t *testing.T, roots [2]string) string {
	t.Helper()
	best := "nothing under way"
	for _, dir := range partitions(t, roots) {
		if _, err := os.Stat(filepath.Join(roots[1], dir)); err == nil {
			if _, err := os.Stat(filepath.Join(roots[1], dir, "partition.metadata")); os.IsNotExist(err) {
				return "target directory without metadata"
			}
		}
		files, _ := listPartition(t, roots, dir)
		for base, cold := range files[1] {
			hot := files[0][base]
			_, coldLog := cold[".log"]
			_, hotLog := hot[".log"]
			_, migrating := cold[".log.migrating"]
			_, index := cold[".index"]
			switch {
			case coldLog && hotLog:
				return "two complete copies"
			case coldLog && len(hot) > 0:
				return "old copy half removed"
			case migrating && index:
				return "indexes renamed, log not"
			case migrating && cold[".log.migrating"] == hot[".log"]:
				return "log copied"
			case migrating:
				return "log half copied"
			case !coldLog && len(cold) > 0:
				best = "indexes being copied"
			}
		}
	}
	return best
}
