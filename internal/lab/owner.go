package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// owner is the process that a lab belongs to. The start time tells it from a later process of the same id.
type owner struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`
}

const ownerName = "owner.json"

// Claim records that this process owns the lab, so that Down may end it.
func (l *Lab) Claim() error {
	start, err := startOf(os.Getpid())
	if err != nil {
		return err
	}
	text, err := json.Marshal(owner{PID: os.Getpid(), Start: start})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, ownerName), text, 0o600)
}

// startOf is when a process started, in clock ticks since boot: field 22 of /proc/PID/stat.
func startOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name in the second field may hold anything, also brackets.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields[19], nil
}

// readOwner tells who claimed a lab.
func readOwner(dir string) (o owner, claimed bool) {
	b, err := os.ReadFile(filepath.Join(dir, ownerName))
	return o, err == nil && json.Unmarshal(b, &o) == nil
}

func (o owner) alive() bool {
	start, err := startOf(o.PID)
	return err == nil && start == o.Start
}

// Down ends the labs that were claimed and whose owners still run, and takes back what dead ones left. It waits until that is
// done. A lab that nobody claimed, as of a test that runs, is not touched: Down fails then.
func Down(ctx context.Context, log io.Writer) ([]Reverted, error) {
	base := labsDir()
	if _, err := os.Stat(base); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	claimed := map[string]bool{}
	for _, dir := range labDirs(base) {
		o, ok := readOwner(dir)
		claimed[dir] = ok
		if ok && o.alive() {
			if err := syscall.Kill(o.PID, syscall.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("end process %d, which owns %s: %w", o.PID, dir, err)
			}
		}
	}
	for _, ok := range claimed {
		if !ok { // look at the lock once: a dead lab's is free
			once, cancel := context.WithCancel(ctx)
			cancel()
			ctx, log = once, io.Discard
		}
	}
	lock, err := lockLabs(ctx, base, log)
	if err != nil {
		return nil, fmt.Errorf("a laboratory is still in use (%s); one of a test ends with its test: %w", strings.Join(labDirs(base), ", "), err)
	}
	var all []Reverted
	for dir := range claimed {
		if _, err := os.Stat(dir); err != nil { // its owner took it down
			all = append(all, Reverted{Dir: dir})
		}
	}
	return append(all, revertDead(base)...), lock.Close()
}
