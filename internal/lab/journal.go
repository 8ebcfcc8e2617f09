package lab

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const journalName = "undo.jsonl"

// undo is one journal entry: something to take back.
type undo struct {
	Kind  string // write, unmount, discard, detach, cgroup
	Path  string // file, mount point, image of a loop device, cgroup directory
	Value string // write: what the file held
}

// note writes the entry before the caller does what it takes back.
func note(dir string, u undo) error {
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	line, err := json.Marshal(u)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	return errors.Join(err, f.Close())
}

// revert undoes everything that the journal in dir lists, last first, and removes dir when all of it worked.
func revert(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var entries []undo
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		var u undo
		if json.Unmarshal(s.Bytes(), &u) == nil { // a torn last line is of something that was not done
			entries = append(entries, u)
		}
	}
	var errs []error
	for i := len(entries) - 1; i >= 0; i-- {
		if err := entries[i].revert(); err != nil {
			errs = append(errs, fmt.Errorf("undo %s %s: %w", entries[i].Kind, entries[i].Path, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (u undo) revert() error {
	switch u.Kind {
	case "write":
		return restore(u.Path, u.Value)
	case "unmount":
		return unmount(u.Path)
	case "discard":
		return discard(u.Path)
	case "detach":
		return detach(u.Path)
	case "cgroup":
		return removeCgroup(u.Path)
	}
	return fmt.Errorf("unknown entry %q", u.Kind)
}

// restore writes a setting back. That of a device which is gone, as after a restart of the machine, is gone with it.
func restore(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if errors.Is(err, unix.ENODEV) { // a throttle
		err = nil
	}
	return errors.Join(err, f.Close())
}

// unmount waits a little for the last user: a process that was just killed may still be going.
func unmount(path string) error {
	return retry(func() error {
		err := unix.Unmount(path, 0)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // not mounted
			return nil
		}
		return err
	})
}

// discard gives up what is not yet written to a disk of ours, so that unmounting does not wait for the device. It touches only
// a file system on a loop device that is mounted at path: without the mount, path is in the machine's own file system.
func discard(path string) error {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return nil // an aborted device; unmounting it says more
	}
	defer d.Close()
	var here, above unix.Stat_t
	if err := errors.Join(unix.Fstat(int(d.Fd()), &here), unix.Stat(filepath.Dir(path), &above)); err != nil {
		return err
	}
	const loopMajor = 7 // Documentation/admin-guide/devices.txt
	if here.Dev == above.Dev || unix.Major(here.Dev) != loopMajor {
		return nil
	}
	err = unix.IoctlSetPointerInt(int(d.Fd()), fsIocShutdown, CutNoLogFlush)
	if errors.Is(err, unix.EIO) { // it was given up already
		return nil
	}
	return err
}

// detach frees the loop devices over an image: the image is ours, a device's number may be somebody else's by now.
func detach(image string) error {
	out, err := exec.Command("losetup", "--noheadings", "--output", "NAME", "--associated", image).Output()
	if err != nil {
		return fmt.Errorf("losetup --associated %s: %w", image, err)
	}
	for dev := range strings.FieldsSeq(string(out)) {
		if err := run("losetup", "--detach", dev); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup kills what is left in a cgroup that this lab made, and removes it.
func removeCgroup(path string) error {
	return retry(func() error {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(procs)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is fine
			}
		}
		return os.Remove(path)
	})
}

// retry repeats what fails with EBUSY for as long as a dying process may keep it busy.
func retry(fn func() error) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := fn(); !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
