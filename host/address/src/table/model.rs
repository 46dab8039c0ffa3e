//! A naive model of Kamailio's table: lists that are searched from end to end. Tests compare the real table with it.

use std::net::IpAddr;

/// A row as an operator writes it.
#[derive(Clone, Debug)]
pub(super) struct ModelRow {
    pub(super) group: u32,
    pub(super) ip: IpAddr,
    pub(super) mask: u8,
    pub(super) port: u16,
    pub(super) tag: Option<String>,
}

/// Host rows in the order of a hash bucket, subnet rows in the order of the array.
#[derive(Debug, Default)]
pub(super) struct Model {
    hosts: Vec<ModelRow>,
    subnets: Vec<ModelRow>,
}

impl Model {
    pub(super) fn load(rows: &[ModelRow]) -> Self {
        let mut model = Self::default();
        for row in rows {
            model.insert(row.clone());
        }
        model
    }

    /// `allow_source_address` and `allow_address`.
    pub(super) fn find(
        &self,
        group: u32,
        source: IpAddr,
        port: u16,
    ) -> Option<(u32, Option<&str>)> {
        let host = self
            .hosts
            .iter()
            .find(|row| row.group == group && row.ip == source && row.fits(port));
        let row = host.or_else(|| {
            self.subnets
                .iter()
                .find(|row| row.group == group && row.covers(source) && row.fits(port))
        });
        row.map(ModelRow::answer)
    }

    /// `allow_source_address_group` and `allow_address_group`.
    pub(super) fn first(&self, source: IpAddr, port: u16) -> Option<(u32, Option<&str>)> {
        let host = self
            .hosts
            .iter()
            .find(|row| row.ip == source && row.fits(port));
        let row = host.or_else(|| {
            self.subnets
                .iter()
                .find(|row| row.covers(source) && row.fits(port))
        });
        row.map(ModelRow::answer)
    }

    fn insert(&mut self, mut row: ModelRow) {
        let full = if row.ip.is_ipv4() { 32 } else { 128 };
        if row.mask == 0 {
            row.mask = full;
        }
        if row.mask == full {
            // At the head of the bucket.
            self.hosts.insert(0, row);
        } else {
            // After the last row whose group is not higher.
            let at = self
                .subnets
                .iter()
                .position(|other| other.group > row.group);
            self.subnets.insert(at.unwrap_or(self.subnets.len()), row);
        }
    }
}

impl ModelRow {
    fn fits(&self, port: u16) -> bool {
        self.port == 0 || self.port == port
    }

    fn covers(&self, source: IpAddr) -> bool {
        let bits = usize::from(self.mask);
        match (self.ip, source) {
            (IpAddr::V4(net), IpAddr::V4(source)) => {
                same_bits(&net.octets(), &source.octets(), bits)
            }
            (IpAddr::V6(net), IpAddr::V6(source)) => {
                same_bits(&net.octets(), &source.octets(), bits)
            }
            _ => false,
        }
    }

    fn answer(&self) -> (u32, Option<&str>) {
        (self.group, self.tag.as_deref())
    }
}

/// Compares bit by bit, and shares no code with the real table.
fn same_bits(a: &[u8], b: &[u8], bits: usize) -> bool {
    (0..bits).all(|bit| (a[bit / 8] ^ b[bit / 8]) & (128 >> (bit % 8)) == 0)
}
