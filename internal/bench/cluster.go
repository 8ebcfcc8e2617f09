package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// cluster is the brokers' administration, and the topics and groups that this run made.
type cluster struct {
	brokers []string
	adm     *kadm.Client
	made    []string
	groups  []string
}

// adminTime is how long one administrative call may take: topics on a slow disk take their time.
const adminTime = time.Minute

// pingTime is how long a broker may take to answer at all.
const pingTime = 10 * time.Second

func connect(ctx context.Context, brokers []string) (*cluster, error) {
	if len(brokers) == 0 {
		return nil, errors.New("no broker given: use --brokers host:port")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ClientID("lagoon-bench"), kgo.RequestTimeoutOverhead(adminTime))
	if err != nil {
		return nil, fmt.Errorf("--brokers %s: %w", strings.Join(brokers, ","), err)
	}
	ping, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	if err := cl.Ping(ping); err != nil {
		cl.Close()
		return nil, fmt.Errorf("no broker answers at %s: %w", strings.Join(brokers, ","), err)
	}
	c := &cluster{brokers: brokers, adm: kadm.NewClient(cl)}
	c.adm.SetTimeoutMillis(int32(adminTime.Milliseconds()))
	return c, nil
}

// close deletes what was made, unless it is to be kept.
func (c *cluster) close(keep bool) error {
	defer c.adm.Close()
	if keep || len(c.made)+len(c.groups) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), pingTime)
	defer cancel()
	if _, err := c.adm.ListBrokers(ctx); err != nil {
		return fmt.Errorf("%s were not deleted: no broker answers", strings.Join(slices.Concat(c.made, c.groups), ", "))
	}
	err := c.removeGroups(context.Background())
	if len(c.made) > 0 {
		err = errors.Join(err, c.remove(context.Background(), slices.Clone(c.made)...))
	}
	return err
}

// remove deletes topics that this run made.
func (c *cluster) remove(ctx context.Context, topics ...string) error {
	ctx, cancel := context.WithTimeout(ctx, adminTime)
	defer cancel()
	resps, err := c.adm.DeleteTopics(ctx, topics...)
	if err == nil {
		err = resps.Error()
	}
	if err != nil {
		return fmt.Errorf("topics %s were not deleted: %w", strings.Join(topics, ", "), err)
	}
	c.made = slices.DeleteFunc(c.made, func(t string) bool { return slices.Contains(topics, t) })
	return nil
}

// create makes a topic. With reuse one that is there is taken if it has the wanted partitions.
func (c *cluster) create(ctx context.Context, topic string, partitions int32, replication int16, configs []string, reuse bool) (reused bool, err error) {
	set, err := topicConfigs(configs)
	if err != nil {
		return false, err
	}
	resp, err := c.adm.CreateTopic(ctx, partitions, replication, set, topic)
	if err == nil {
		err = resp.Err
	}
	switch {
	case err == nil:
		c.made = append(c.made, topic)
		return false, c.await(ctx, topic, partitions)
	case !errors.Is(err, kerr.TopicAlreadyExists):
		return false, fmt.Errorf("create topic %s: %w %s", topic, err, resp.ErrMessage)
	case !reuse:
		return false, fmt.Errorf("topic %s is there already: delete it, or use --reuse or another --topic-prefix", topic)
	}
	found, err := c.adm.ListTopics(ctx, topic)
	if err != nil {
		return false, err
	}
	if n := len(found[topic].Partitions); n != int(partitions) {
		return false, fmt.Errorf("topic %s is there with %d partitions, %d are wanted: delete it, or use another --topic-prefix", topic, n, partitions)
	}
	return true, nil
}

// await returns when every partition has a leader that knows it is one.
func (c *cluster) await(ctx context.Context, topic string, partitions int32) error {
	for end := time.Now().Add(adminTime); ; {
		led, err := c.leaders(ctx, topic)
		if err == nil && len(led) == int(partitions) {
			if _, _, err = c.offsets(ctx, topic, partitions); err == nil {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("topic %s: %d of %d partitions have a leader after %v (%v)", topic, len(led), partitions, adminTime, err)
		}
		if !pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// topicConfigs parses name=value.
func topicConfigs(pairs []string) (map[string]*string, error) {
	set := map[string]*string{}
	for _, pair := range pairs {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("topic config %q is not name=value", pair)
		}
		set[k] = &v
	}
	return set, nil
}

// leaders is the address of the leader of each partition that has one.
func (c *cluster) leaders(ctx context.Context, topic string) (map[int32]string, error) {
	md, err := c.adm.Metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	if err := md.Topics[topic].Err; err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	addr := map[int32]string{}
	for _, b := range md.Brokers {
		addr[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	out := map[int32]string{}
	for p, d := range md.Topics[topic].Partitions {
		if a, ok := addr[d.Leader]; ok && d.Err == nil {
			out[p] = a
		}
	}
	return out, nil
}

// byLeader groups partitions by the broker that leads them.
func byLeader(leaders map[int32]string) map[string][]int32 {
	out := map[string][]int32{}
	for p, a := range leaders {
		out[a] = append(out[a], p)
	}
	for _, ps := range out {
		slices.Sort(ps)
	}
	return out
}

// offsets is the first and the end offset of each partition.
func (c *cluster) offsets(ctx context.Context, topic string, partitions int32) (first, end []int64, err error) {
	read := func(list func(context.Context, ...string) (kadm.ListedOffsets, error)) ([]int64, error) {
		listed, err := list(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("offsets of %s: %w", topic, err)
		}
		out := make([]int64, partitions)
		for p := range out {
			o, ok := listed.Lookup(topic, int32(p))
			if !ok {
				return nil, fmt.Errorf("offsets of %s: nothing about partition %d", topic, p)
			}
			out[p] = o.Offset
		}
		return out, nil
	}
	if first, err = read(c.adm.ListStartOffsets); err != nil {
		return nil, nil, err
	}
	end, err = read(c.adm.ListEndOffsets)
	return first, end, err
}

const (
	watchEvery = time.Second
	// deadTime is above what a broker takes to start again. One that stalls still takes connections: the kernel does that for it.
	deadTime = 10 * time.Second
)

// errDead is a broker that takes no connection.
var errDead = errors.New("no broker answers")

// watch returns a context that ends with errDead when no broker has taken a connection for deadTime: clients that try again for ever would
// wait for ever. It ends with ErrInterrupted when ctx does.
func (c *cluster) watch(ctx context.Context) (watched context.Context, stop func()) {
	return watch(ctx, func() bool {
		return slices.ContainsFunc(c.brokers, func(addr string) bool {
			conn, err := net.DialTimeout("tcp", addr, watchEvery)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
	})
}

func watch(ctx context.Context, answers func() bool) (context.Context, func()) {
	watched, end := context.WithCancelCause(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() { end(ErrInterrupted) })
	go func() {
		for last := time.Now(); pause(watched, watchEvery); {
			if answers() {
				last = time.Now()
			} else if time.Since(last) > deadTime {
				end(fmt.Errorf("%w for %v", errDead, deadTime))
			}
		}
	}()
	return watched, func() { forget(); end(nil) }
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
