select contact_id, account_id, first_name || ' ' || last_name as full_name, lower(email) as email
from {{ ref('raw_contacts') }}
