package tiering

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

// RemoveSegment takes one segment's files out of one tier and makes that durable: rename to .deleted, the .log first, then
// unlink, then sync the directory. Files that are not there count as removed, so that it can be repeated.
func RemoveSegment(fsys vfs.FS, dir string, base segment.Offset) error {
	var deleted []string
	for _, suffix := range append([]string{logSuffix}, companions...) {
		name := fileName(dir, base, suffix)
		switch err := fsys.Rename(name, name+segment.DeletedSuffix); {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			deleted = append(deleted, name+segment.DeletedSuffix)
		default:
			return fmt.Errorf("remove segment %s: %w", fileName(dir, base, logSuffix), err)
		}
	}
	for _, name := range deleted {
		if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove segment %s: %w", fileName(dir, base, logSuffix), err)
		}
	}
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("remove segment %s: %w", fileName(dir, base, logSuffix), err)
	}
	return nil
}

// Swept is what Sweep did in one partition directory. Names are full paths.
type Swept struct {
	Removed     []string // leftovers of migrations and deletions, indexes without a .log
	Duplicates  []string // second copies removed: the hotter one, unless the colder one lacks a file
	Quarantined []string // colder copies set aside because they are not what the hotter one is
}

// Sweep clears what a crash left in one partition directory of all open tiers (hot to cold), before anyone opens its
// segments: `.migrating`, `.deleted` and `.tmp` files, indexes without a log, and the hotter of two copies of a segment.
//
// A copy was verified before its `.log` got its name, so equal sizes, and equal bytes at both ends, are enough to keep the
// colder one and remove the hotter; the other way round when the colder one lacks an index that the hotter one has. A colder copy that differs is no copy of ours: it goes to quarantine/ and
// the hotter one stays. Nothing else is touched. Sweep can be interrupted and repeated at any point.
func Sweep(tiers []Tier, dir string) (Swept, error) {
	var done Swept
	holders := map[segment.Offset]holder{} // hottest copy seen so far
	for _, tier := range tiers {
		bases, err := done.clear(tier, dir)
		if err != nil {
			return done, fmt.Errorf("sweep %s in tier %s: %w", dir, tier.Name, err)
		}
		for _, base := range bases {
			colder := holder{tier: tier, base: base}
			if hotter, twice := holders[base]; twice {
				kept, err := done.resolve(hotter, colder, dir)
				if err != nil {
					return done, fmt.Errorf("sweep %s: two copies of segment %d in %s and %s: %w", dir, base, hotter.tier.Name, tier.Name, err)
				}
				colder = kept
			}
			holders[base] = colder
		}
	}
	return done, nil
}

// holder is one copy of a segment.
type holder struct {
	tier Tier
	base segment.Offset
}

// clear removes leftovers and orphaned indexes from one tier and gives the segments that are there.
func (s *Swept) clear(tier Tier, dir string) ([]segment.Offset, error) {
	entries, err := tier.FS.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	logs := map[segment.Offset]bool{}
	var bases []segment.Offset
	for _, e := range entries {
		if base, suffix, ok := parseFile(e.Name); ok && e.Regular && suffix == logSuffix {
			logs[base] = true
			bases = append(bases, base)
		}
	}
	before := len(s.Removed)
	for _, e := range entries {
		if !e.Regular || !leftover(e.Name, logs) {
			continue
		}
		if err := tier.FS.Remove(dir + "/" + e.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		s.Removed = append(s.Removed, tier.FS.Root()+"/"+dir+"/"+e.Name)
	}
	if len(s.Removed) > before {
		return bases, tier.FS.SyncDir(dir)
	}
	return bases, nil
}

// leftover tells whether a crash left a file: it is being written, copied or deleted, or it is an index without its log.
func leftover(name string, logs map[segment.Offset]bool) bool {
	if strings.HasSuffix(name, segment.TmpSuffix) {
		return true
	}
	for _, suffix := range []string{segment.MigratingSuffix, segment.DeletedSuffix} {
		if whole, cut := strings.CutSuffix(name, suffix); cut {
			_, _, ok := parseFile(whole)
			return ok
		}
	}
	base, suffix, ok := parseFile(name)
	return ok && suffix != logSuffix && !logs[base]
}

// parseFile takes a segment file's name apart; ok is false for anything that a segment does not consist of.
func parseFile(name string) (base segment.Offset, suffix string, ok bool) {
	if len(name) < 20 {
		return 0, "", false
	}
	number, err := strconv.ParseUint(name[:20], 10, 63)
	if err != nil {
		return 0, "", false
	}
	switch suffix = name[20:]; suffix {
	case logSuffix, indexSuffix, timeIndexSuffix, txnIndexSuffix:
		return segment.Offset(number), suffix, true
	}
	return 0, "", false
}

// resolve leaves one of two copies and gives the one that stays.
func (s *Swept) resolve(hotter, colder holder, dir string) (holder, error) {
	same, err := sameFile(hotter.tier.FS, colder.tier.FS, fileName(dir, hotter.base, logSuffix))
	if err != nil {
		return holder{}, err
	}
	if same {
		keep, drop := colder, hotter
		// A migration that was to a hotter tier had come to removing the colder copy: a power cut kept the name of its
		// .log and not those of its indexes.
		if whole, err := hasCompanions(colder, hotter, dir); err != nil {
			return holder{}, err
		} else if !whole {
			keep, drop = hotter, colder
		}
		// The process may have been killed before the name that stays was durable: it has to be before the other one goes.
		if err := syncNames(keep.tier.FS, dir); err != nil {
			return holder{}, err
		}
		s.Duplicates = append(s.Duplicates, drop.tier.FS.Root()+"/"+fileName(dir, drop.base, logSuffix))
		return keep, RemoveSegment(drop.tier.FS, dir, drop.base)
	}
	s.Quarantined = append(s.Quarantined, colder.tier.FS.Root()+"/"+fileName(dir, colder.base, logSuffix))
	return hotter, Quarantine(colder.tier.FS, dir, colder.base)
}

// hasCompanions tells whether a copy has every file that the other one has.
func hasCompanions(copy, other holder, dir string) (bool, error) {
	for _, suffix := range companions {
		name := fileName(dir, other.base, suffix)
		switch _, err := other.tier.FS.Stat(name); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return false, err
		}
		switch _, err := copy.tier.FS.Stat(name); {
		case errors.Is(err, fs.ErrNotExist):
			return false, nil
		case err != nil:
			return false, err
		}
	}
	return true, nil
}

// endBytes is how much of both ends of two copies is compared.
const endBytes = 4096

// sameFile compares the sizes and both ends of a file in two tiers.
func sameFile(a, b vfs.FS, name string) (same bool, err error) {
	fa, err := a.Open(name, vfs.ReadOnly)
	if err != nil {
		return false, err
	}
	defer fa.Close() // read only: nothing to lose
	fb, err := b.Open(name, vfs.ReadOnly)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	sizeA, err := fa.Size()
	if err != nil {
		return false, err
	}
	sizeB, err := fb.Size()
	if err != nil || sizeA != sizeB {
		return false, err
	}
	n := min(sizeA, endBytes)
	for _, pos := range []int64{0, sizeA - n} {
		pa, pb := make([]byte, n), make([]byte, n)
		if _, err := fa.ReadAt(pa, pos); err != nil {
			return false, err
		}
		if _, err := fb.ReadAt(pb, pos); err != nil {
			return false, err
		}
		if !bytes.Equal(pa, pb) {
			return false, nil
		}
	}
	return true, nil
}

// Quarantine moves a segment's files into the partition's quarantine directory, durably: the .log first, and never over
// something that is there already, be it an earlier one or, after a power cut in the middle of this, the same file under
// both names (renaming a file to another name of itself does nothing).
func Quarantine(fsys vfs.FS, dir string, base segment.Offset) error {
	aside := dir + "/" + segment.QuarantineDir
	if err := fsys.MkdirAll(aside); err != nil {
		return err
	}
	for _, suffix := range append([]string{logSuffix}, companions...) {
		name := fileName(dir, base, suffix)
		if _, err := fsys.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		target, err := freeName(fsys, fileName(aside, base, suffix))
		if err != nil {
			return err
		}
		if err := fsys.Rename(name, target); err != nil {
			return err
		}
	}
	return errors.Join(fsys.SyncDir(aside), fsys.SyncDir(dir))
}

// freeName appends a number to a name that is taken.
func freeName(fsys vfs.FS, name string) (string, error) {
	const most = 1000 // someone should have looked by then
	for i := range most {
		candidate := name
		if i > 0 {
			candidate = fmt.Sprintf("%s.%d", name, i)
		}
		_, err := fsys.Stat(candidate)
		if errors.Is(err, fs.ErrNotExist) {
			return candidate, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s/%s and %d more are in quarantine; look at them and remove them", fsys.Root(), name, most-1)
}
