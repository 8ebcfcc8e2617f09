package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lagoon/internal/bench/report"
	"lagoon/internal/lab"
)

// Outside is where the broker can be looked at from outside. Everything is optional; what is not given is not measured.
type Outside struct {
	PID      int      // of the broker, on this machine
	DataDirs []string // where the broker keeps topics: DIR/TOPIC-PARTITION/*.log
	Devices  []string // block devices, such as loop3; none: those of DataDirs
	Admin    string   // base URL of Lagoon's admin API
}

// procUse is what a process has used so far.
type procUse struct {
	cpu                     time.Duration
	anonBytes               int64
	readBytes, writtenBytes int64
}

// userHz is the unit of /proc/PID/stat on every Linux this runs on.
const userHz = 100

func readProc(pid int) (procUse, error) {
	var u procUse
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("--pid %d: %w", pid, err)
	}
	// The name, in parentheses, may hold spaces.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		u.cpu += time.Duration(n) * time.Second / userHz
	}
	status, err := keyed(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	io, err := keyed(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return u, err
	}
	u.anonBytes, u.readBytes, u.writtenBytes = status["RssAnon"]<<10, io["read_bytes"], io["write_bytes"]
	return u, nil
}

// keyed reads lines of "name: number unit".
func keyed(name string) (map[string]int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]int64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, _ := strings.Cut(s.Text(), ":")
		if fields := strings.Fields(v); len(fields) > 0 {
			if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				out[k] = n
			}
		}
	}
	return out, nil
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// check finds mistakes before anything is measured, and returns the block devices to watch.
func (o *Outside) check(ctx context.Context) ([]string, error) {
	if o.PID != 0 {
		if _, err := readProc(o.PID); err != nil {
			return nil, err
		}
	}
	if o.Admin != "" {
		if _, err := o.coldBytesOf(ctx, "none"); err != nil {
			return nil, err
		}
	}
	return o.devices()
}

// devices are the block devices to watch: the given ones, or those that hold the data.
func (o *Outside) devices() ([]string, error) {
	if len(o.Devices) > 0 {
		out := make([]string, len(o.Devices))
		for i, d := range o.Devices {
			out[i] = strings.TrimPrefix(d, "/dev/")
			if _, err := os.Stat("/sys/class/block/" + out[i] + "/stat"); err != nil {
				return nil, fmt.Errorf("--device %s: no such block device", d)
			}
		}
		return out, nil
	}
	var out []string
	for _, dir := range o.DataDirs {
		name, err := blockDevice(dir)
		if err != nil {
			return nil, fmt.Errorf("--data-dir %s: %w", dir, err)
		}
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// blockDevice is the name of the device that a file lies on, "" when it is none that the kernel lists.
func blockDevice(name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return "", err
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return "", nil
	}
	return filepath.Base(link), nil
}

const sectorBytes = 512 // of /sys/block/*/stat, whatever the device's own are

func readDevice(name string) (report.DeviceUse, error) {
	text, err := os.ReadFile("/sys/class/block/" + name + "/stat")
	if err != nil {
		return report.DeviceUse{}, err
	}
	f := strings.Fields(string(text))
	if len(f) < 7 {
		return report.DeviceUse{}, fmt.Errorf("/sys/class/block/%s/stat: %d fields", name, len(f))
	}
	read, err1 := strconv.ParseInt(f[2], 10, 64)
	written, err2 := strconv.ParseInt(f[6], 10, 64)
	return report.DeviceUse{Name: name, ReadBytes: read * sectorBytes, WrittenBytes: written * sectorBytes}, errors.Join(err1, err2)
}

// segments are a topic's .log files by partition, oldest first.
func (o *Outside) segments(topic string) (map[int][]string, error) {
	out := map[int][]string{}
	for _, dir := range o.DataDirs {
		names, err := filepath.Glob(filepath.Join(escape(dir), escape(topic)+"-*", "*.log"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			number := strings.TrimPrefix(filepath.Base(filepath.Dir(name)), topic+"-")
			if p, err := strconv.Atoi(number); err == nil {
				out[p] = append(out[p], name)
			}
		}
	}
	for _, names := range out {
		slices.SortFunc(names, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	}
	return out, nil
}

// escape has Glob take a name as it is.
func escape(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// look is what is resident of a topic in all, and of the newest window bytes of each partition.
func (o *Outside) look(topic string, window int64) (all, newest lab.Pages, err error) {
	parts, err := o.segments(topic)
	if err != nil {
		return all, newest, err
	}
	for _, names := range parts {
		left := window
		for _, name := range slices.Backward(names) {
			size, err := lookFile(name, left, &all, &newest)
			if err != nil && !errors.Is(err, os.ErrNotExist) { // deleted or moved meanwhile
				return all, newest, err
			}
			left = max(left-size, 0)
		}
	}
	return all, newest, nil
}

func lookFile(name string, window int64, all, newest *lab.Pages) (size int64, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	size = info.Size()
	whole, err := lab.Cached(name, 0, size)
	if err != nil {
		return size, err
	}
	all.Add(whole)
	part := min(window, size)
	end, err := lab.Cached(name, size-part, part)
	newest.Add(end)
	return size, err
}

// evictTime is how long dirty pages may take to be written back.
const evictTime = 10 * time.Second

// evictAll takes a topic out of the page cache and tells what stayed. Dirty pages need a moment; what a broker has locked in memory
// stays, and nobody waits for it.
func (o *Outside) evictAll(ctx context.Context, topic string) (left int64, err error) {
	left = math.MaxInt64
	for tries, end := 0, time.Now().Add(evictTime); left > 0 && tries < 5 && time.Now().Before(end); tries++ {
		now, err := o.evict(topic)
		if err != nil {
			return now, err
		}
		if now < left {
			tries = 0
		}
		if left = now; left > 0 && !pause(ctx, 100*time.Millisecond) {
			break
		}
	}
	return left, nil
}

// evict takes a topic out of the page cache and tells what could not be taken.
func (o *Outside) evict(topic string) (left int64, err error) {
	parts, err := o.segments(topic)
	if err != nil {
		return 0, err
	}
	for _, names := range parts {
		for _, name := range names {
			if err := evictFile(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return 0, err
			}
		}
	}
	all, _, err := o.look(topic, 0)
	return all.Bytes(), err
}

func evictFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	// Started, not waited for: waiting could take an error away from the broker's own sync.
	err = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write back %s: %w", name, err)
	}
	return lab.Evict(name)
}

// ask gets something of Lagoon's admin API.
func (o *Outside) ask(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	address := strings.TrimSuffix(o.Admin, "/") + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("--admin: %s answers %s", address, resp.Status)
	}
	return body, err
}

// coldBytes is how many bytes readers of topics have had from devices, whatever the broker takes the readers for.
func (o *Outside) coldBytes(ctx context.Context, topics ...string) (sum int64, err error) {
	for _, topic := range topics {
		n, err := o.coldBytesOf(ctx, topic)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// mostReaders is the most that Lagoon lists in one answer.
const mostReaders = 10_000

// coldBytesOf asks for the readers of one topic only: backlog readers of old alone may be more than one answer has.
func (o *Outside) coldBytesOf(ctx context.Context, topic string) (sum int64, err error) {
	body, err := o.ask(ctx, fmt.Sprintf("/api/v1/readers?limit=%d&topic=%s", mostReaders, url.QueryEscape(topic)))
	if err != nil {
		return 0, err
	}
	var list struct {
		Total   int `json:"total"`
		Readers []struct {
			Topic     string `json:"topic"`
			ColdBytes int64  `json:"cold_bytes_total"`
		} `json:"readers"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return 0, fmt.Errorf("--admin: %w", err)
	}
	if list.Total > len(list.Readers) {
		return 0, fmt.Errorf("--admin: of %d readers of %s only %d are listed", list.Total, topic, len(list.Readers))
	}
	for _, r := range list.Readers {
		if r.Topic == topic {
			sum += r.ColdBytes
		}
	}
	return sum, nil
}
