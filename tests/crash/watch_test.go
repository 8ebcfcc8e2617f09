package crash

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fileEvent is something that happened to a name in a watched directory.
type fileEvent struct {
	Mask      uint32
	Dir, Name string
}

// watcher tells of names that come, change and go below some roots: the roots themselves and the directories in them.
type watcher struct {
	t    *testing.T
	fd   int
	end  chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	dirs map[int32]string
	fire func(fileEvent) // called for every event, from one goroutine that does nothing else
}

const watched = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_DELETE

func newWatcher(t *testing.T, roots ...string) *watcher {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatalf("inotify: %v", err)
	}
	w := &watcher{t: t, fd: fd, end: make(chan struct{}), dirs: map[int32]string{}}
	for _, root := range roots {
		w.add(root)
		entries, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				w.add(filepath.Join(root, e.Name()))
			}
		}
	}
	w.done.Go(w.run)
	t.Cleanup(func() {
		close(w.end)
		w.done.Wait()
		_ = unix.Close(fd)
	})
	return w
}

func (w *watcher) add(dir string) {
	wd, err := unix.InotifyAddWatch(w.fd, dir, watched)
	if err != nil {
		return // gone again
	}
	w.mu.Lock()
	w.dirs[int32(wd)] = dir
	w.mu.Unlock()
}

// on sets what is called at each event from now on; nil for nothing.
func (w *watcher) on(fire func(fileEvent)) {
	w.mu.Lock()
	w.fire = fire
	w.mu.Unlock()
}

// run reads events. It goes before everything else on the machine, because what it waits for lasts microseconds.
func (w *watcher) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20); err == nil {
		defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 0) }()
	}
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-w.end:
			return
		default:
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 50); err != nil && err != unix.EINTR {
			return
		}
		n, err := unix.Read(w.fd, buf)
		if err != nil {
			continue // EAGAIN
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:size]), "\x00")
			b = b[size:]
			w.mu.Lock()
			ev, fire := fileEvent{mask, w.dirs[wd], name}, w.fire
			w.mu.Unlock()
			if fire != nil {
				fire(ev)
			}
			if mask&unix.IN_CREATE != 0 && mask&unix.IN_ISDIR != 0 {
				w.add(filepath.Join(ev.Dir, name))
			}
		}
	}
}

// waitFor fires once, at the first event that match accepts, after acting on it at once.
func (w *watcher) waitFor(limit time.Duration, match func(fileEvent) bool, act func()) (fileEvent, error) {
	hit := make(chan fileEvent, 1)
	fired := false
	w.on(func(ev fileEvent) {
		if !fired && match(ev) {
			fired = true
			act()
			hit <- ev
		}
	})
	defer w.on(nil)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case ev := <-hit:
		return ev, nil
	case <-timeout.C:
		return fileEvent{}, fmt.Errorf("nothing of the kind happened within %v", limit)
	}
}
