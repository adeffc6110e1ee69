package io.cdcplatform.connect;

import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.components.Versioned;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Lets NULL stay NULL in optional fields that have a default.
 *
 * <p>Avro converters write the default of an optional field where its value is NULL, and after
 * that no consumer can tell the two apart. This transform takes the default out of the schema of
 * every optional field, at any depth of key and value, before the converter sees the record.
 *
 * <p>The default itself is not thrown away: a sink needs it to add the column with the value that
 * the source gave to its old rows. It travels as the schema parameter {@link
 * SchemaWithoutDefaults#DEFAULT_PARAMETER}, as JSON text.
 */
public final class KeepNulls<R extends ConnectRecord<R>> implements Transformation<R>, Versioned {
  private final SchemaCache cache = new SchemaCache();

  @Override
  public R apply(R record) {
    Schema keySchema = cache.withoutDefaults(record.keySchema());
    Schema valueSchema = cache.withoutDefaults(record.valueSchema());
    if (keySchema == record.keySchema() && valueSchema == record.valueSchema()) {
      return record;
    }
    return record.newRecord(
        record.topic(),
        record.kafkaPartition(),
        keySchema,
        Values.under(record.keySchema(), keySchema, record.key()),
        valueSchema,
        Values.under(record.valueSchema(), valueSchema, record.value()),
        record.timestamp());
  }

  @Override
  public String version() {
    return "1.0.0";
  }

  @Override
  public ConfigDef config() {
    return new ConfigDef();
  }

  @Override
  public void configure(Map<String, ?> configs) {}

  @Override
  public void close() {}
}
