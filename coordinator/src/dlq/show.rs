//! One dead letter with everything in it, decoded.

use cdc_shared::avro::frame;
use cdc_shared::control::ControlState;
use cdc_shared::dlq::{Datum, LetterDetail, LetterFilter, LetterHeader};
use cdc_shared::hex;
use cdc_shared::offset::TopicPartition;
use rdkafka::message::{Headers, Message};

use super::DeadLetters;
use super::follower::read_one;
use crate::consume;
use crate::kafka::KafkaTrouble;

impl DeadLetters {
    /// The letter that `filter` names, the newest where topics of one name followed each other;
    /// `None` when there is none.
    ///
    /// # Errors
    /// When Kafka cannot be read.
    pub async fn show(
        &self,
        control: &ControlState,
        filter: &LetterFilter,
    ) -> Result<Option<LetterDetail>, KafkaTrouble> {
        let found = self.choose(control, filter).await;
        let Some(chosen) = found.into_iter().max_by_key(|chosen| chosen.letter.at_ms) else {
            return Ok(None);
        };
        let (topic, partition, offset) = chosen.letter.place.clone();
        let (kafka, group) = (self.kafka.clone(), self.group.clone());
        let tp = TopicPartition::new(topic, partition);
        let read = tokio::task::spawn_blocking(move || read_one(&kafka, &group, &tp, offset));
        let read = read.await.unwrap_or_else(|e| Err(KafkaTrouble::Answer(e.to_string())))?;
        let Some(record) = read else { return Ok(None) };
        let headers = record.headers().into_iter().flat_map(Headers::iter).map(|header| {
            let value = header.value.unwrap_or_default();
            let text =
                std::str::from_utf8(value).map_or_else(|_| hex::encode(value), ToOwned::to_owned);
            LetterHeader { name: header.key.to_owned(), value: text }
        });
        Ok(Some(LetterDetail {
            pipeline_id: self.pipeline_id.clone(),
            headers: headers.collect(),
            key_datum: self.datum(record.key()).await,
            value_datum: self.datum(record.payload()).await,
            letter: self.view(&chosen).await,
        }))
    }

    async fn datum(&self, bytes: Option<&[u8]>) -> Datum {
        let Some(bytes) = bytes else { return Datum::default() };
        let schema_id = frame(bytes).ok().map(|(id, _)| id);
        let known = Datum { schema_id, bytes: Some(bytes.len()), ..Datum::default() };
        match consume::decode(&self.registry, bytes).await {
            Ok(Ok(decoded)) => Datum { json: Some(decoded.json), ..known },
            Ok(Err(why)) => Datum { hex: Some(hex::encode(bytes)), error: Some(why), ..known },
            Err(failure) => {
                Datum { hex: Some(hex::encode(bytes)), error: Some(failure.message), ..known }
            }
        }
    }
}
