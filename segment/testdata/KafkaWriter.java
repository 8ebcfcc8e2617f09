import java.io.File;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.checkpoint.CleanShutdownFileHandler;
import org.apache.kafka.storage.internals.checkpoint.LeaderEpochCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.OffsetCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.PartitionMetadataFile;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.EpochEntry;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogSegment;
import org.apache.kafka.storage.internals.log.ProducerAppendInfo;
import org.apache.kafka.storage.internals.log.ProducerStateManager;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;

/**
 * Writes a partition directory with Kafka's own classes from the batches in given log files, for comparison:
 * KafkaWriter root dir log base [log base ...]
 */
public class KafkaWriter {
    public static void main(String[] args) throws Exception {
        File root = new File(args[0]);
        File dir = new File(root, args[1]);
        Files.createDirectories(dir.toPath());
        LogConfig config = new LogConfig(Map.of());
        TopicPartition tp = new TopicPartition("orders", 3);
        ProducerStateManager producers = new ProducerStateManager(tp, dir, 900_000,
            new ProducerStateManagerConfig(86_400_000, false), Time.SYSTEM);
        for (int i = 2; i < args.length; i += 2) {
            MemoryRecords log = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(new File(args[i]).toPath())));
            LogSegment segment = LogSegment.open(dir, Long.parseLong(args[i + 1]), config, Time.SYSTEM, 0, false);
            for (MutableRecordBatch batch : log.batches()) {
                ByteBuffer one = ByteBuffer.allocate(batch.sizeInBytes());
                batch.writeTo(one);
                one.flip();
                segment.append(batch.lastOffset(), MemoryRecords.readableRecords(one));
                if (batch.hasProducerId()) {
                    ProducerAppendInfo info = producers.prepareUpdate(batch.producerId(), AppendOrigin.CLIENT);
                    info.append(batch, Optional.empty());
                    producers.update(info);
                }
                producers.updateMapEndOffset(batch.lastOffset() + 1);
            }
            segment.onBecomeInactiveSegment();
            segment.flush();
            segment.close();
        }
        producers.takeSnapshot();
        new LeaderEpochCheckpointFile(LeaderEpochCheckpointFile.newFile(dir), null)
            .write(List.of(new EpochEntry(0, 0), new EpochEntry(4, 100)));
        PartitionMetadataFile metadata = new PartitionMetadataFile(PartitionMetadataFile.newFile(dir), null);
        metadata.record(Uuid.fromString("AAECAwQFBgcICQoLDA0ODw"));
        metadata.maybeFlush();
        new OffsetCheckpointFile(new File(root, "recovery-point-offset-checkpoint"), null).write(Map.of(tp, 250L));
        new CleanShutdownFileHandler(root.getPath()).write(77);
    }
}
