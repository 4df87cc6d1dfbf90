"""Sentences of many languages, written for these tests: each row's joined text must come apart into its parts.

Each text of a script with capitals holds an abbreviation that ends no sentence, and a sentence that ends in a number.
"""

from __future__ import annotations

from typing import Final

UNSPACED: Final = frozenset({"ja", "zh"})

ROWS: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        "The help desk is on floor 12.",
        "Ask Dr. Miller for a key, e.g. the blue one.",
        "Is the door shut?",
        "Then ring!",
    ),
    "de": (
        "Der Drucker steht in Raum 12.",
        "Fragen Sie z. B. Frau Dr. Weber nach dem Schlüssel.",
        "Ist die Tür zu?",
        "Über den Hof geht es auch.",
    ),
    "fr": (
        "L'imprimante est dans la salle 12.",
        "Demandez à M. Dupont ou à Mme. Petit.",
        "La porte est-elle fermée ?",
        "Écrivez alors au bureau !",
    ),
    "es": (
        "La impresora está en la sala 12.",
        "Pregunte al Sr. López por la llave.",
        "¿Está cerrada la puerta?",
        "¡Llame entonces!",
        "Él vendrá.",
    ),
    "it": (
        "La stampante è nella stanza 12.",
        "Chieda al sig. Rossi la chiave.",
        "La porta è chiusa?",
        "È aperta di giorno.",
    ),
    "pt": (
        "A impressora fica na sala 12.",
        "Pergunte ao Sr. Silva pela chave.",
        "A porta está fechada?",
        "Às vezes fica aberta.",
    ),
    "nl": (
        "De printer staat in kamer 12.",
        "Vraag dhr. Bakker om de sleutel, bijv. de blauwe.",
        "Is de deur dicht?",
        "Bel dan even!",
    ),
    "pl": (
        "Drukarka stoi w pokoju 12.",
        "Zapytaj np. Annę albo prof. Nowaka o klucz.",
        "Czy drzwi są zamknięte?",
        "Światło jest włączone.",
    ),
    "ru": (
        "Принтер стоит в комнате 12.",
        "Спросите, напр. Анну или А. С. Иванова, где ключ.",
        "Дверь закрыта?",
        "Ёлка стоит во дворе.",
    ),
    "uk": (
        "Принтер стоїть у кімнаті 12.",
        "Запитайте проф. Шевченка про ключ.",
        "Двері зачинені?",
        "Їжа стоїть на столі.",
        "Є ще й кава.",
    ),
    "cs": (
        "Tiskárna stojí v místnosti 12.",
        "Zeptejte se např. Anny nebo Ing. Nováka na klíč.",
        "Jsou dveře zavřené?",
        "Řekněte to Evě.",
    ),
    "sv": (
        "Skrivaren står i rum 12.",
        "Fråga t.ex. Anna om nyckeln.",
        "Är dörren stängd?",
        "Åk annars hem.",
    ),
    "da": (
        "Printeren står i lokale 12.",
        "Spørg f.eks. Anna om nøglen.",
        "Er døren lukket?",
        "Åbn den så.",
    ),
    "fi": (
        "Tulostin on huoneessa 12.",
        "Kysy avainta esim. Annalta.",
        "Onko ovi kiinni?",
        "Älä jätä sitä auki.",
    ),
    "hu": (
        "A nyomtató a 12-es szobában van, a kulcs száma 12.",
        "Kérdezze pl. Annát a kulcsról.",
        "Zárva van az ajtó?",
        "Őt is kérdezze meg.",
    ),
    "tr": (
        "Yazıcı 12 numaralı odada, kodu 12.",
        "Anahtarı Dr. Yılmaz verir.",
        "Kapı kapalı mı?",
        "İsterseniz arayın.",
        "Şimdi gidin.",
    ),
    "el": (
        "Ο εκτυπωτής είναι στο δωμάτιο 12.",
        "Ρωτήστε π.χ. την Άννα για το κλειδί.",
        "Είναι κλειστή η πόρτα;",
        "Έλα αύριο.",
    ),
    "he": (
        "המדפסת נמצאת בחדר 12.",
        "בקשו את המפתח מן הפקידה.",
        "האם הדלת סגורה?",
        "התקשרו מיד!",
    ),
    "ar": (
        "الطابعة في الغرفة 12.",
        "اسأل الموظفة عن المفتاح.",
        "هل الباب مغلق؟",
        "اتصل بنا غدا!",
    ),
    "fa": (
        "چاپگر در اتاق ۱۲ است.",
        "کلید را از منشی بگیرید.",
        "آیا در بسته است؟",
        "فردا زنگ بزنید.",
    ),
    "ur": (
        "پرنٹر کمرے میں ہے۔",
        "چابی دفتر سے لیں۔",
        "کیا دروازہ بند ہے؟",
        "کل فون کریں۔",
    ),
    "hi": (
        "प्रिंटर कमरा संख्या १२ में है।",
        "चाबी कार्यालय से लें।",
        "क्या दरवाज़ा बंद है?",
        "कल फ़ोन करें।",
    ),
    "bn": (
        "প্রিন্টারটি ১২ নম্বর ঘরে আছে।",
        "চাবি অফিস থেকে নিন।",
        "দরজা কি বন্ধ?",
        "কাল ফোন করুন।",
    ),
    "ta": (
        "அச்சுப்பொறி அறை 12 இல் உள்ளது.",
        "சாவியை அலுவலகத்தில் வாங்கவும்.",
        "கதவு மூடியிருக்கிறதா?",
        "நாளை அழைக்கவும்.",
    ),
    "am": (
        "ማተሚያው በክፍል 12 ውስጥ ነው።",
        "ቁልፉን ከቢሮ ይውሰዱ።",
        "በሩ ተዘግቷል?",
        "ነገ ይደውሉ።",
    ),
    "hy": (
        "Տպիչը սենյակում է։",
        "Բանալին վերցրեք գրասենյակից։",
        "Վաղը զանգահարեք։",
    ),
    "ka": (
        "პრინტერი ოთახში 12.",
        "გასაღები აიღეთ ოფისში.",
        "კარი დახურულია?",
        "ხვალ დარეკეთ.",
    ),
    "my": (
        "ပုံနှိပ်စက်သည် အခန်းထဲတွင် ရှိသည်။",
        "သော့ကို ရုံးမှ ယူပါ။",
        "မနက်ဖြန် ဖုန်းဆက်ပါ။",
    ),
    "km": (
        "ម៉ាស៊ីនបោះពុម្ពនៅក្នុងបន្ទប់។",
        "សូមយកកូនសោពីការិយាល័យ។",
        "សូមទូរស័ព្ទនៅថ្ងៃស្អែក។",
    ),
    "bo": (
        "པར་འཁོར་ནི་ཁང་མིག་ནང་ཡོད།",
        "ལྡེ་མིག་ཡིག་ཚང་ནས་ལེན།",
    ),
    "th": ("เครื่องพิมพ์อยู่ในห้อง 12 ถามพนักงานเรื่องกุญแจ",),
    "ko": (
        "프린터는 12호실에 있습니다.",
        "열쇠는 사무실에서 받으세요.",
        "문이 닫혀 있습니까?",
        "내선 번호는 12.",
        "내일 전화하세요!",
    ),
    "ja": (
        "プリンターは１２号室にあります。",
        "「鍵は事務所です。」",
        "ドアは閉まっていますか？",
        "明日お電話ください！",
    ),
    "zh": (
        "打印机在十二号房间。",
        "钥匙请到办公室领取。",
        "门关了吗？",
        "他说：“明天打电话！”",
        "好的。",
    ),
    "vi": (
        "Máy in ở phòng 12.",
        "Hãy hỏi TS. Nguyễn về chìa khóa.",
        "Cửa đã đóng chưa?",
        "Đừng để cửa mở.",
        "Ổ khóa mới.",
    ),
    "id": (
        "Pencetak ada di ruang 12.",
        "Tanyakan kunci kepada Dr. Santoso.",
        "Apakah pintunya tertutup?",
        "Teleponlah besok.",
    ),
}


def joined(language: str) -> str:
    return ("" if language in UNSPACED else " ").join(ROWS[language])
