package partition

import (
	"maps"
	"slices"
	"sync"

	"lagoon/segment"
)

// dirNames are the partition directories that a log directory may hold: those that were there when it was opened, and those that were to be made
// since. A topic is made and deleted by them: no device is asked for a partition that it does not have. Safe for concurrent use.
type dirNames struct {
	mu    sync.Mutex
	names map[string]struct{}
}

func (n *dirNames) note(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.names == nil {
		n.names = map[string]struct{}{}
	}
	n.names[name] = struct{}{}
}

func (n *dirNames) forget(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.names, name)
}

// may is false when it is not there.
func (n *dirNames) may(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.names[name]
	return ok
}

func (n *dirNames) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.names))
}

// of lists a topic's partitions.
func (n *dirNames) of(topic string) (partitions []int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.names {
		if t, p, ok := segment.ParsePartitionDir(name); ok && t == topic {
			partitions = append(partitions, p)
		}
	}
	return partitions
}
