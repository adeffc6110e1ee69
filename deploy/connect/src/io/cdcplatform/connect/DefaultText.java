package io.cdcplatform.connect;

import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.util.Base64;
import java.util.Collection;
import java.util.Map;
import java.util.StringJoiner;
import org.apache.kafka.connect.data.Date;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Time;
import org.apache.kafka.connect.data.Timestamp;

/**
 * A default as JSON text: what the Avro datum would be, in JSON.
 *
 * <p>Numbers and booleans are themselves, Connect's date and time types are the number they are
 * sent as, strings are JSON strings. Decimals and numbers that JSON lacks (NaN, infinities) are
 * strings of their exact text, bytes are base64 strings.
 */
final class DefaultText {
  private DefaultText() {}

  static String of(Schema schema, Object value) {
    if (value == null) {
      return "null";
    }
    if (value instanceof java.util.Date) {
      return date(schema, (java.util.Date) value);
    }
    if (value instanceof BigDecimal) {
      return quoted(((BigDecimal) value).toPlainString());
    }
    switch (schema.type()) {
      case BOOLEAN:
      case INT8:
      case INT16:
      case INT32:
      case INT64:
        return value.toString();
      case FLOAT32:
      case FLOAT64:
        double number = ((Number) value).doubleValue();
        boolean plain = !Double.isNaN(number) && !Double.isInfinite(number);
        return plain ? value.toString() : quoted(value.toString());
      case BYTES:
        return quoted(base64(value));
      case ARRAY:
        return list(schema, (Collection<?>) value);
      case MAP:
        return map(schema, (Map<?, ?>) value);
      case STRUCT:
        return struct((Struct) value);
      default:
        return quoted(value.toString());
    }
  }

  private static String date(Schema schema, java.util.Date value) {
    if (Date.LOGICAL_NAME.equals(schema.name())) {
      return Integer.toString(Date.fromLogical(schema, value));
    }
    if (Time.LOGICAL_NAME.equals(schema.name())) {
      return Integer.toString(Time.fromLogical(schema, value));
    }
    return Long.toString(Timestamp.fromLogical(schema, value));
  }

  private static String base64(Object value) {
    if (value instanceof byte[]) {
      return Base64.getEncoder().encodeToString((byte[]) value);
    }
    ByteBuffer buffer = ((ByteBuffer) value).duplicate();
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    return Base64.getEncoder().encodeToString(bytes);
  }

  private static String list(Schema schema, Collection<?> values) {
    StringJoiner text = new StringJoiner(",", "[", "]");
    values.forEach(value -> text.add(of(schema.valueSchema(), value)));
    return text.toString();
  }

  private static String map(Schema schema, Map<?, ?> values) {
    StringJoiner text = new StringJoiner(",", "{", "}");
    values.forEach(
        (key, value) -> text.add(quoted(key.toString()) + ":" + of(schema.valueSchema(), value)));
    return text.toString();
  }

  private static String struct(Struct value) {
    StringJoiner text = new StringJoiner(",", "{", "}");
    for (Field field : value.schema().fields()) {
      Object part = value.getWithoutDefault(field.name());
      text.add(quoted(field.name()) + ":" + of(field.schema(), part));
    }
    return text.toString();
  }

  private static String quoted(String text) {
    StringBuilder out = new StringBuilder(text.length() + 2).append('"');
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (c == '"' || c == '\\') {
        out.append('\\').append(c);
      } else if (c < 0x20) {
        out.append(String.format("\\u%04x", (int) c));
      } else {
        out.append(c);
      }
    }
    return out.append('"').toString();
  }
}
