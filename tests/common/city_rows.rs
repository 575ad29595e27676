//! The simulated city's updates as rows of `driver_locations`, without Kafka and the job.

use riderflow::model::{Flag, Input, Location, Place, Source};
use riderflow::simulate::{Batch, Oddity, Plan, Simulation, What};
use riderflow::wire::{Limits, decode_update};

/// A city whose updates are rows as a job in time would make them: offsets of two partitions,
/// by state, and timestamps of a producer that sends every slice of city time some milliseconds
/// later.
pub struct CityRows {
    city: Simulation,
    batch: Batch,
    next_offsets: [i64; 2],
}

impl CityRows {
    /// A city of this plan, from its beginning.
    pub fn new(plan: Plan) -> Self {
        Self {
            city: Simulation::new(plan),
            batch: Batch::new(),
            next_offsets: [0; 2],
        }
    }

    /// Milliseconds of city time so far.
    pub fn now_ms(&self) -> i64 {
        self.city.now_ms()
    }

    /// Moves the city on by a slice, and adds its rows to `rows`.
    pub fn step(&mut self, rows: &mut Vec<Location>) {
        self.city.next_step(&mut self.batch);
        // Uneven, and the same each time.
        let now_ms = self.city.plan().start_ms + self.city.now_ms();
        let sent_ms = now_ms + 3 + (now_ms / 20 * 7_919) % 11;
        for message in self.batch.messages() {
            let What::Update(oddity) = message.what else {
                continue;
            };
            let partition = i32::from(message.state != Some("south"));
            let next_offset = &mut self.next_offsets[partition as usize];
            let source = Source {
                input: Input::Updates,
                partition,
                offset: *next_offset,
            };
            *next_offset += 1;
            let place = Place {
                at_ms: sent_ms,
                source,
            };
            let value = self.batch.value(message);
            let update = decode_update(value, place, sent_ms, &Limits::default())
                .expect("the city's updates are valid");
            let flag = match oddity {
                Oddity::None => Flag::Ok,
                Oddity::Late => Flag::Late,
                Oddity::Duplicate => Flag::Duplicate,
                Oddity::Inaccurate => Flag::Inaccurate,
                Oddity::Teleport => Flag::Teleport,
            };
            rows.push(Location { update, flag });
        }
    }
}
