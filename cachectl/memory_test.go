package cachectl

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReadMemory(t *testing.T) {
	const gib = 1 << 30
	machine := map[string]string{"proc/meminfo": "MemTotal:  8388608 kB\nMemFree:  1048576 kB\nMemAvailable:  4194304 kB\n"}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Memory
	}{
		{"no groups", nil, Memory{8 * gib, gib, 4 * gib, "machine"}},
		{"version 2: the parent's limit counts", map[string]string{
			"proc/self/cgroup": "0::/lagoon.slice/broker\n",
			"sys/fs/cgroup/lagoon.slice/broker/memory.max": "max\n", "sys/fs/cgroup/lagoon.slice/broker/memory.current": "1000\n",
			"sys/fs/cgroup/lagoon.slice/memory.max":     "2147483648\n",
			"sys/fs/cgroup/lagoon.slice/memory.current": "2000000000\n",
			"sys/fs/cgroup/lagoon.slice/memory.stat":    "anon 5\ninactive_file 1000000\nactive_file 500000\nunevictable 7\n",
		}, Memory{2 * gib, 147483648, 148983648, "/sys/fs/cgroup/lagoon.slice"}},
		{"version 2: memory.high is a limit", map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "max\n",
			"sys/fs/cgroup/memory.high":    "1073741824\n",
			"sys/fs/cgroup/memory.current": "73741824\n",
		}, Memory{gib, 1000000000, 1000000000, "/sys/fs/cgroup"}},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n0::/\n",
			// as in a container: the group is the root of the mount
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/memory.stat":           "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 23\n",
		}, Memory{gib, 0, 123, "/sys/fs/cgroup/memory"}},
		{"version 1 without a limit", map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
		}, Memory{8 * gib, gib, 4 * gib, "machine"}},
		{"nonsense", map[string]string{
			"proc/self/cgroup":             "0::/../..\nx\n",
			"sys/fs/cgroup/memory.max":     "-5\n",
			"sys/fs/cgroup/memory.current": "lots\n",
		}, Memory{8 * gib, gib, 4 * gib, "machine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for _, files := range []map[string]string{machine, c.files} {
				for name, text := range files {
					if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, err := readMemory(root)
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Source != "machine" {
				c.want.Source = filepath.Join(root, c.want.Source)
			}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	if _, err := readMemory(t.TempDir()); err == nil {
		t.Error("no /proc/meminfo, and no error")
	}
}

func TestLinuxReadMemory(t *testing.T) {
	m, err := ReadMemory()
	if err != nil || m.Limit < 1<<20 || m.Available < m.Free || m.Free > m.Limit {
		t.Errorf("%+v, %v", m, err)
	}
}
