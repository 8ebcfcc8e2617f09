package segment

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"lagoon/internal/vfs"
)

// Names of Kafka's small files in a tier's root.
const (
	RecoveryPointFile = "recovery-point-offset-checkpoint"
	LogStartFile      = "log-start-offset-checkpoint"
	CleanerFile       = "cleaner-offset-checkpoint" // below it a log was compacted
	CleanShutdownFile = ".kafka_cleanshutdown"
)

const (
	partitionMetadataFile = "partition.metadata"
	// maxTextBytes bounds what is read of a checkpoint file: a hundred thousand partitions with the longest names.
	maxTextBytes = 64 << 20
)

// TopicPartition names one partition in a checkpoint.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// ReadCheckpoint reads an offset checkpoint ("0", count, "topic partition offset" lines); empty when the file is absent.
// Errors: *CorruptError with the byte position of the bad line.
func ReadCheckpoint(fsys vfs.FS, name string) (map[TopicPartition]Offset, error) {
	m := map[TopicPartition]Offset{}
	err := readLines(fsys, name, func(fields []string) error {
		if len(fields) != 3 {
			return fmt.Errorf("%d fields, want topic, partition, offset", len(fields))
		}
		partition, errP := strconv.ParseInt(fields[1], 10, 32)
		offset, errO := strconv.ParseInt(fields[2], 10, 64)
		if err := errors.Join(errP, errO); err != nil {
			return err
		}
		if partition < 0 || offset < 0 {
			return fmt.Errorf("partition %d, offset %d", partition, offset)
		}
		key := TopicPartition{Topic: fields[0], Partition: int32(partition)}
		if _, twice := m[key]; twice {
			return fmt.Errorf("%s-%d twice", key.Topic, key.Partition)
		}
		m[key] = Offset(offset)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// WriteCheckpoint replaces an offset checkpoint, durably and atomically.
func WriteCheckpoint(fsys vfs.FS, name string, m map[TopicPartition]Offset) error {
	keys := make([]TopicPartition, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	var b bytes.Buffer
	fmt.Fprintf(&b, "0\n%d\n", len(keys))
	for _, key := range keys {
		fmt.Fprintf(&b, "%s %d %d\n", key.Topic, key.Partition, m[key])
	}
	return vfs.WriteFileAtomic(fsys, name, b.Bytes())
}

// readLines reads Kafka's checkpoint text: version 0, a count, that many lines. An absent file has none.
func readLines(fsys vfs.FS, name string, line func(fields []string) error) error {
	b, err := vfs.ReadFile(fsys, name, maxTextBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, vfs.ErrTooLarge) {
		return &CorruptError{Path: name, Pos: -1, Err: err}
	}
	if err != nil {
		return err
	}
	if bad := parseLines(b, line); bad != nil {
		bad.Path = name
		return bad
	}
	return nil
}

func parseLines(b []byte, line func(fields []string) error) *CorruptError {
	pos := 0
	next := func() (string, bool) {
		if pos >= len(b) {
			return "", false
		}
		end := bytes.IndexByte(b[pos:], '\n')
		if end < 0 { // every line that Kafka writes ends: this one was cut off
			return "", false
		}
		text := string(b[pos : pos+end])
		pos += end + 1
		return text, true
	}
	if version, ok := next(); !ok || version != "0" {
		return &CorruptError{Pos: 0, Want: "0", Got: version, Err: errors.New("version")}
	}
	text, _ := next()
	count, err := strconv.Atoi(text)
	if err != nil || count < 0 {
		return &CorruptError{Pos: 2, Err: fmt.Errorf("count %q", text)}
	}
	for ; count > 0; count-- {
		at := int64(pos)
		text, ok := next()
		if !ok {
			return &CorruptError{Pos: at, Err: fmt.Errorf("%d lines are missing", count)}
		}
		if err := line(strings.Fields(text)); err != nil {
			return &CorruptError{Pos: at, Err: err}
		}
	}
	if pos != len(b) {
		return &CorruptError{Pos: int64(pos), Err: errors.New("more lines than the count says")}
	}
	return nil
}

// ReadPartitionMetadata reads partition.metadata. Errors: fs.ErrNotExist; *CorruptError.
func ReadPartitionMetadata(fsys vfs.FS, dir string) (topicID [16]byte, err error) {
	name := inDir(dir, partitionMetadataFile)
	b, err := vfs.ReadFile(fsys, name, 4096)
	if errors.Is(err, vfs.ErrTooLarge) {
		return topicID, &CorruptError{Path: name, Pos: -1, Err: err}
	}
	if err != nil {
		return topicID, err
	}
	version, id, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), "\n")
	if !ok || version != "version: 0" {
		return topicID, &CorruptError{Path: name, Pos: 0, Want: "version: 0", Got: version, Err: errors.New("first line")}
	}
	text, ok := strings.CutPrefix(id, "topic_id: ")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) != len(topicID) {
		return topicID, &CorruptError{Path: name, Pos: int64(len(version)) + 1, Err: fmt.Errorf("topic id line %q", id)}
	}
	if topicID = [16]byte(raw); topicID == [16]byte{} {
		return topicID, &CorruptError{Path: name, Pos: int64(len(version)) + 1, Err: errors.New("the zero topic id")}
	}
	return topicID, nil
}

// WritePartitionMetadata replaces partition.metadata, durably and atomically.
func WritePartitionMetadata(fsys vfs.FS, dir string, topicID [16]byte) error {
	text := "version: 0\ntopic_id: " + base64.RawURLEncoding.EncodeToString(topicID[:])
	return vfs.WriteFileAtomic(fsys, inDir(dir, partitionMetadataFile), []byte(text))
}

// cleanShutdown is the JSON in .kafka_cleanshutdown.
type cleanShutdown struct {
	Version     int   `json:"version"`
	BrokerEpoch int64 `json:"brokerEpoch"`
}

// ReadCleanShutdown tells whether the marker of a clean stop is there, and the broker epoch in it, -1 when it says none
// (Kafka reads old or unreadable ones the same way: the file's being there is the statement).
func ReadCleanShutdown(fsys vfs.FS) (brokerEpoch int64, found bool, err error) {
	b, err := vfs.ReadFile(fsys, CleanShutdownFile, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, false, nil
	}
	if errors.Is(err, vfs.ErrTooLarge) {
		return -1, true, nil
	}
	if err != nil {
		return -1, false, err
	}
	content := cleanShutdown{BrokerEpoch: -1}
	if json.Unmarshal(b, &content) != nil {
		return -1, true, nil
	}
	return content.BrokerEpoch, true, nil
}

// WriteCleanShutdown makes the marker, durably: the last thing a clean stop writes.
func WriteCleanShutdown(fsys vfs.FS, brokerEpoch int64) error {
	b, err := json.Marshal(cleanShutdown{BrokerEpoch: brokerEpoch})
	if err != nil {
		return err
	}
	return vfs.WriteFileAtomic(fsys, CleanShutdownFile, b)
}

// RemoveCleanShutdown removes the marker, durably: before the first write after a start.
func RemoveCleanShutdown(fsys vfs.FS) error {
	if err := fsys.Remove(CleanShutdownFile); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return fsys.SyncDir(".")
}
