package io.cdcplatform.connect;

import io.apicurio.registry.utils.converter.avro.AvroData;
import java.math.BigDecimal;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.ServiceLoader;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.connect.data.Decimal;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.storage.Converter;
import org.apache.kafka.connect.transforms.Transformation;

/** Checks of the transform against the converter's own Avro code; run by {@code deploy/connect/test}. */
public final class KeepNullsTest {
  private static final Schema NOTE = SchemaBuilder.string().optional().defaultValue("hello").build();
  private static final Schema AMOUNT =
      Decimal.builder(2).optional().defaultValue(new BigDecimal("5.50")).build();
  private static final Schema STATUS = SchemaBuilder.string().defaultValue("new").build();
  private static final Schema TAGS =
      SchemaBuilder.array(Schema.OPTIONAL_STRING_SCHEMA)
          .optional()
          .defaultValue(Arrays.asList("a", null, "q\"\n"))
          .build();
  private static final Schema ROW =
      SchemaBuilder.struct().name("cdc.public.orders.Value").optional()
          .field("id", Schema.INT64_SCHEMA)
          .field("note", NOTE)
          .field("amount", AMOUNT)
          .field("status", STATUS)
          .field("tags", TAGS)
          .build();
  private static final Schema ENVELOPE =
      SchemaBuilder.struct().name("cdc.public.orders.Envelope")
          .field("before", ROW)
          .field("after", ROW)
          .field("op", Schema.STRING_SCHEMA)
          .build();
  private static final Schema KEY =
      SchemaBuilder.struct().name("cdc.public.orders.Key").field("id", Schema.INT64_SCHEMA).build();

  private static int passed;
  private static int failed;

  private final KeepNulls<SourceRecord> transform = new KeepNulls<>();

  public static void main(String[] args) {
    KeepNullsTest test = new KeepNullsTest();
    test.converterAloneLosesNull();
    test.nullStaysNull();
    test.givenValuesAreUntouched();
    test.defaultIsCarriedInTheAvroSchema();
    test.requiredDefaultStays();
    test.nestedPartsAreRewritten();
    test.tombstonesAndPlainValuesPass();
    test.headersAndPositionStay();
    test.schemaIsRewrittenOnceAndTheCacheIsBounded();
    test.servicesAreDeclared();
    System.out.printf("%d passed, %d failed%n", passed, failed);
    System.exit(failed == 0 && passed > 0 ? 0 : 1);
  }

  /** Without this loss there would be no need for the transform. */
  private void converterAloneLosesNull() {
    GenericRecord after = avroAfter(record(row(null, null)));
    check("converter alone turns NULL into the default", "hello", text(after.get("note")));
  }

  private void nullStaysNull() {
    SourceRecord out = transform.apply(record(row(null, null)));
    GenericRecord after = avroAfter(out);
    check("NULL text stays NULL", null, after.get("note"));
    check("NULL decimal stays NULL", null, after.get("amount"));
    check("NULL array stays NULL", null, after.get("tags"));
    check("the other fields stay", 7L, after.get("id"));
    check("NULL before stays NULL", null, ((Struct) out.value()).get("before"));
    ((Struct) out.value()).validate();
  }

  private void givenValuesAreUntouched() {
    Struct row = row("given", new BigDecimal("1.25")).getStruct("after");
    row.put("tags", Arrays.asList("x", null));
    Struct value = new Struct(ENVELOPE).put("before", row).put("after", row).put("op", "u");
    Struct out = (Struct) transform.apply(record(value)).value();
    for (String side : List.of("before", "after")) {
      check(side + " text", "given", out.getStruct(side).get("note"));
      check(side + " decimal", new BigDecimal("1.25"), out.getStruct(side).get("amount"));
      check(side + " array", Arrays.asList("x", null), out.getStruct(side).get("tags"));
    }
  }

  private void defaultIsCarriedInTheAvroSchema() {
    Schema after = transform.apply(record(row(null, null))).valueSchema().field("after").schema();
    check("default of text", "\"hello\"", carried(after, "note"));
    check("default of decimal", "\"5.50\"", carried(after, "amount"));
    check("default of array", "[\"a\",null,\"q\\\"\\u000a\"]", carried(after, "tags"));
    check("scale of decimal", "2", after.field("amount").schema().parameters().get("scale"));
    org.apache.avro.Schema note =
        avroAfter(transform.apply(record(row(null, null)))).getSchema().getField("note").schema();
    check("NULL is the first branch", org.apache.avro.Schema.Type.NULL, note.getTypes().get(0).getType());
    Object parameters = note.getTypes().get(1).getObjectProp("connect.parameters");
    check("default in the Avro schema", Map.of("cdc.default", "\"hello\""), parameters);
  }

  private void requiredDefaultStays() {
    Struct out = (Struct) transform.apply(record(row(null, null))).value();
    Schema status = out.schema().field("after").schema().field("status").schema();
    check("default of a required field", "new", status.defaultValue());
    check("no parameter on it", null, status.parameters());
  }

  private void nestedPartsAreRewritten() {
    Schema schema = SchemaBuilder.map(Schema.STRING_SCHEMA, SchemaBuilder.array(ROW).build()).build();
    Object in = Map.of("k", Arrays.asList(row(null, null).getStruct("after"), null));
    Object out = transform.apply(record(schema, in)).value();
    List<?> rows = (List<?>) ((Map<?, ?>) out).get("k");
    check("struct in a list in a map", null, ((Struct) rows.get(0)).get("note"));
    check("NULL element", null, rows.get(1));
    Schema required = SchemaBuilder.struct().field("inner", ROW).build();
    Struct deep = new Struct(required).put("inner", row(null, null).getStruct("after"));
    Struct moved = (Struct) transform.apply(record(required, deep)).value();
    check("struct in a struct", null, moved.getStruct("inner").get("note"));
  }

  private void tombstonesAndPlainValuesPass() {
    SourceRecord tombstone = record(null, null);
    check("tombstone is the same record", true, transform.apply(tombstone) == tombstone);
    SourceRecord schemaless = record(null, Map.of("a", 1));
    check("schemaless value is the same record", true, transform.apply(schemaless) == schemaless);
    SourceRecord plain = record(Schema.STRING_SCHEMA, "heartbeat");
    check("plain value is the same record", true, transform.apply(plain) == plain);
    check("NULL of an optional root", null, transform.apply(record(NOTE, null)).value());
    check("NULL envelope under its schema", null, transform.apply(record(ENVELOPE, null)).value());
  }

  private void headersAndPositionStay() {
    SourceRecord in = record(row(null, null));
    in.headers().addString("__debezium.newkey", "{\"id\":8}");
    SourceRecord out = transform.apply(in);
    check("header", "{\"id\":8}", out.headers().lastWithName("__debezium.newkey").value());
    check("topic", in.topic(), out.topic());
    check("partition", in.kafkaPartition(), out.kafkaPartition());
    check("timestamp", in.timestamp(), out.timestamp());
    check("source offset", in.sourceOffset(), out.sourceOffset());
    check("key", true, out.key() == in.key() && out.keySchema() == in.keySchema());
  }

  private void schemaIsRewrittenOnceAndTheCacheIsBounded() {
    SourceRecord first = transform.apply(record(row(null, null)));
    SourceRecord second = transform.apply(record(row("x", null)));
    check("one schema object", true, first.valueSchema() == second.valueSchema());
    Schema value = first.valueSchema();
    check("before and after share it", true, value.field("before").schema() == value.field("after").schema());
    SchemaCache cache = new SchemaCache();
    for (int i = 0; i < 2 * SchemaCache.LIMIT; i++) {
      cache.withoutDefaults(SchemaBuilder.string().optional().defaultValue("d" + i).build());
    }
    check("cache is bounded", true, cache.size() <= SchemaCache.LIMIT);
  }

  /** Connect finds plugins by these declarations alone; see plugin.discovery=service_load. */
  private void servicesAreDeclared() {
    boolean transforms =
        ServiceLoader.load(Transformation.class).stream()
            .anyMatch(p -> p.type() == KeepNulls.class);
    check("transform is declared", true, transforms);
    boolean converter =
        ServiceLoader.load(Converter.class).stream()
            .anyMatch(p -> p.type().getName().equals("io.apicurio.registry.utils.converter.AvroConverter"));
    check("converter is declared", true, converter);
  }

  private static Struct row(String note, BigDecimal amount) {
    Struct after = new Struct(ROW).put("id", 7L).put("note", note).put("amount", amount).put("status", "new");
    return new Struct(ENVELOPE).put("after", after).put("op", "c");
  }

  private static SourceRecord record(Struct value) {
    return record(value.schema(), value);
  }

  private static SourceRecord record(Schema schema, Object value) {
    Struct key = new Struct(KEY).put("id", 7L);
    return new SourceRecord(
        Map.of("server", "cdc"), Map.of("lsn", 1L), "cdc.public.orders", 3, KEY, key, schema, value, 42L);
  }

  private static GenericRecord avroAfter(SourceRecord record) {
    Object datum = new AvroData(10).fromConnectData(record.valueSchema(), record.value());
    return (GenericRecord) ((GenericRecord) datum).get("after");
  }

  private static String carried(Schema row, String field) {
    return row.field(field).schema().parameters().get("cdc.default");
  }

  private static String text(Object value) {
    return value == null ? null : value.toString();
  }

  private static void check(String what, Object expected, Object found) {
    if (Objects.equals(expected, found)) {
      passed++;
      return;
    }
    failed++;
    System.out.printf("FAILED: %s: expected %s, found %s%n", what, expected, found);
  }
}
