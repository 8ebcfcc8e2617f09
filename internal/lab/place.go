package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// placedPartitions is how many partitions of a topic that does not exist yet get a place.
const placedPartitions = 64

// Place says on which of the rig's disks a topic is kept, for a broker whose disks are log directories (Kafka); Lagoon places segments
// itself and is left alone. A topic that does not exist yet will be made there (KIP-113).
func (r *Rig) Place(ctx context.Context, b *Broker, topic string, tier int) error {
	if b.Name != "kafka" || len(r.Tiers) < 2 {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap))
	if err != nil {
		return err
	}
	admin := kadm.NewClient(client)
	defer admin.Close()
	details, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	exists := details.Has(topic)
	count := placedPartitions
	if exists {
		count = len(details[topic].Partitions)
	}
	partitions := kadm.TopicsSet{}
	for p := range int32(count) {
		partitions.Add(topic, p)
	}
	var ask kadm.AlterReplicaLogDirsReq
	ask.Add(r.Tiers[tier].Data(), partitions)
	responses, err := admin.AlterBrokerReplicaLogDirs(ctx, kafkaNode, ask)
	if err != nil {
		return err
	}
	var errs []error
	responses.Each(func(a kadm.AlterReplicaLogDirsResponse) {
		// What Kafka says of a partition that does not exist yet; it notes the place all the same.
		if a.Err != nil && (exists || !errors.Is(a.Err, kerr.UnknownTopicOrPartition)) {
			errs = append(errs, fmt.Errorf("place %s/%d: %w", a.Topic, a.Partition, a.Err))
		}
	})
	return errors.Join(errs...)
}

// WaitPlaced waits until the sealed segments of a topic have left the first of the rig's disks: Lagoon moves them by itself, as the
// topic's local.retention.ms says, and Kafka as Place said. It gives up when nothing moves for a minute.
func (r *Rig) WaitPlaced(ctx context.Context, b *Broker, topic string) error {
	began, last := time.Now(), -1
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := segmentsLeft(r.Tiers[0].Data(), topic, b.Name == "lagoon")
		if err != nil || left == 0 {
			return err
		}
		if left != last {
			began, last = time.Now(), left
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("%d segments of %s stay on %s; the end of the broker's log:\n%s", left, topic, r.Tiers[0].Name, b.Tail(10))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.Exited():
			return fmt.Errorf("%s has ended; the end of its log:\n%s", b.Name, b.Tail(20))
		case <-tick.C:
		}
	}
}

// segmentsLeft counts a topic's segments in a broker's folder; the active one of each partition stays with a broker of tiers.
func segmentsLeft(data, topic string, tiers bool) (n int, err error) {
	folders, err := filepath.Glob(filepath.Join(data, topic+"-*"))
	if err != nil {
		return 0, err
	}
	// A folder that Kafka has left is renamed until it is deleted: TOPIC-PARTITION.ID-delete.
	folders = slices.DeleteFunc(folders, func(f string) bool { return strings.Contains(filepath.Base(f)[len(topic):], ".") })
	for _, folder := range folders {
		logs, err := filepath.Glob(filepath.Join(folder, "*.log"))
		if err != nil {
			return 0, err
		}
		n += len(logs)
		if tiers && len(logs) > 0 {
			n--
		}
	}
	return n, nil
}
